#include "flags/flagd/json_logic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/support/status_matchers.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;
using test::StatusIs;
using testing::HasSubstr;

struct Case {
  std::string_view rule, data, expected;
};

void Check(std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    const auto result = ApplyLogic(json::parse(c.rule), json::parse(c.data));
    ASSERT_THAT(result, test::IsOk()) << c.rule;
    EXPECT_EQ(*result, json::parse(c.expected)) << c.rule << " of " << c.data;
  }
}

TEST(JsonLogicTest, Values) {
  Check({{"7", "{}", "7"},
         {R"("a")", "{}", R"("a")"},
         {"null", "{}", "null"},
         {R"([1, {"+": [1, 1]}])", "{}", "[1, 2]"},
         {R"({"a": 1, "b": 2})", "{}", R"({"a": 1, "b": 2})"},
         {"{}", "{}", "{}"}});
}

TEST(JsonLogicTest, Variables) {
  Check({{R"({"var": "a"})", R"({"a": 1})", "1"},
         {R"({"var": ["a"]})", R"({"a": 1})", "1"},
         {R"({"var": ["b", 2]})", R"({"a": 1})", "2"},
         {R"({"var": "b"})", R"({"a": 1})", "null"},
         {R"({"var": ["a", 2]})", R"({"a": null})", "2"},
         {R"({"var": "a.b.1"})", R"({"a": {"b": [5, 6]}})", "6"},
         {R"({"var": 1})", "[5, 6]", "6"},
         {R"({"var": "9"})", "[5, 6]", "null"},
         {R"({"var": "-1"})", "[5, 6]", "null"},
         {R"({"var": "a.b"})", R"({"a": 3})", "null"},
         {R"({"var": ""})", "[1]", "[1]"},
         {R"({"var": []})", R"({"a": 1})", R"({"a": 1})"},
         {R"({"var": {"var": "which"}})", R"({"which": "x", "x": 4})", "4"},
         {R"({"missing": ["a", "b"]})", R"({"a": 1})", R"(["b"])"},
         {R"({"missing": {"merge": ["b", ["c"]]}})", R"({"c": 1})", R"(["b"])"},
         {R"({"missing": "a"})", "{}", R"(["a"])"},
         {R"({"missing_some": [1, ["a", "b"]]})", R"({"a": 1})", "[]"},
         {R"({"missing_some": [2, ["a", "b", "c"]]})", R"({"a": 1})", R"(["b", "c"])"}});
}

TEST(JsonLogicTest, Comparisons) {
  Check({{R"({"==": [1, "1"]})", "{}", "true"},
         {R"({"==": [0, false]})", "{}", "true"},
         {R"({"==": [null, 0]})", "{}", "false"},
         {R"({"==": [null, {"var": "x"}]})", "{}", "true"},
         {R"({"==": ["a", "b"]})", "{}", "false"},
         {R"({"==": [1]})", "{}", "false"},
         {R"({"===": [1, "1"]})", "{}", "false"},
         {R"({"===": [1, 1.0]})", "{}", "true"},
         {R"({"!=": [1, 2]})", "{}", "true"},
         {R"({"!==": [1, "1"]})", "{}", "true"},
         {R"({"<": [1, 2]})", "{}", "true"},
         {R"({"<": [1, 2, 3]})", "{}", "true"},
         {R"({"<": [1, 3, 2]})", "{}", "false"},
         {R"({"<=": [1, 1, 1]})", "{}", "true"},
         {R"({">": [2, "1"]})", "{}", "true"},
         {R"({">=": ["b", "a"]})", "{}", "true"},
         {R"({"<": ["10", "9"]})", "{}", "true"},
         {R"({"<": ["x", 9]})", "{}", "false"},
         {R"({">=": [{"var": "x"}, 0]})", "{}", "false"}});
}

TEST(JsonLogicTest, LogicAndTruth) {
  Check({{R"({"!": [true]})", "{}", "false"},
         {R"({"!": true})", "{}", "false"},
         {R"({"!": ""})", "{}", "true"},
         {R"({"!!": [[]]})", "{}", "false"},
         {R"({"!!": ["0"]})", "{}", "true"},
         {R"({"and": [true, 0, 3]})", "{}", "0"},
         {R"({"and": [1, "b"]})", "{}", R"("b")"},
         {R"({"or": [0, "", "c", 1]})", "{}", R"("c")"},
         {R"({"or": []})", "{}", "null"},
         {R"({"if": []})", "{}", "null"},
         {R"({"if": [true, 1]})", "{}", "1"},
         {R"({"if": [false, 1]})", "{}", "null"},
         {R"({"if": [false, 1, 2]})", "{}", "2"},
         {R"({"?:": [false, 1, true, 2, 3]})", "{}", "2"},
         {R"({"if": [0, 1, 0, 2, 3]})", "{}", "3"},
         // The branch that is not taken is not run: it could not be.
         {R"({"if": [true, "ok", {"nonsense": []}]})", "{}", R"("ok")"},
         {R"({"or": [1, {"nonsense": []}]})", "{}", "1"}});
}

TEST(JsonLogicTest, Arithmetic) {
  Check({{R"({"+": [1, "2", 3]})", "{}", "6.0"},
         {R"({"+": "3.5"})", "{}", "3.5"},
         {R"({"-": [5, 2]})", "{}", "3.0"},
         {R"({"-": [5]})", "{}", "-5.0"},
         {R"({"-": 5})", "{}", "-5.0"},
         {R"({"*": [2, 3, 4]})", "{}", "24.0"},
         {R"({"/": [9, 2]})", "{}", "4.5"},
         {R"({"%": [7, 3]})", "{}", "1.0"},
         {R"({"max": [1, 3, 2]})", "{}", "3.0"},
         {R"({"min": [1, 3, 2]})", "{}", "1.0"},
         {R"({"max": []})", "{}", "null"},
         {R"({"max": {"var": "l"}})", R"({"l": [4, 9]})", "9.0"}});
  for (const std::string_view bad : {R"({"+": [null]})", R"({"+": [true]})", R"({"*": [[1]]})", R"({"%": [1]})"}) {
    EXPECT_THAT(ApplyLogic(json::parse(bad), json::object()),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs numbers")))
        << bad;
  }
  EXPECT_THAT(ApplyLogic(json::parse(R"({"/": [1, 0]})"), json::object()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("infinite")));
}

TEST(JsonLogicTest, Lists) {
  Check(
      {{R"({"map": [{"var": "l"}, {"*": [{"var": ""}, 2]}]})", R"({"l": [1, 2]})", "[2.0, 4.0]"},
       {R"({"map": [{"var": "x"}, 1]})", "{}", "[]"},
       {R"({"filter": [[1, 2, 3], {">": [{"var": ""}, 1]}]})", "{}", "[2, 3]"},
       {R"({"filter": [{"var": "p"}, {"==": [{"var": "n"}, 2]}]})", R"({"p": [{"n": 1}, {"n": 2}]})", R"([{"n": 2}])"},
       {R"({"reduce": [[1, 2, 3], {"+": [{"var": "current"}, {"var": "accumulator"}]}, 10]})", "{}", "16.0"},
       {R"({"reduce": [{"var": "x"}, {"var": "current"}, 10]})", "{}", "10"},
       {R"({"all": [[1, 2], {">": [{"var": ""}, 0]}]})", "{}", "true"},
       {R"({"all": [[], true]})", "{}", "false"},
       {R"({"none": [[1, 2], {">": [{"var": ""}, 2]}]})", "{}", "true"},
       {R"({"none": [[], true]})", "{}", "true"},
       {R"({"some": [[1, 2], {">": [{"var": ""}, 1]}]})", "{}", "true"},
       {R"({"some": [{"var": "x"}, true]})", "{}", "false"},
       {R"({"merge": [[1], 2, [3, 4]]})", "{}", "[1, 2, 3, 4]"},
       {R"({"in": [2, [1, 2]]})", "{}", "true"},
       {R"({"in": ["2", [1, 2]]})", "{}", "false"},
       {R"({"in": ["ell", "hello"]})", "{}", "true"},
       {R"({"in": [{"var": "x"}, "hello"]})", "{}", "false"},
       {R"({"in": ["a", {"var": "x"}]})", "{}", "false"}});
}

TEST(JsonLogicTest, Text) {
  Check({{R"({"cat": ["a", 1, 0.5, null, true]})", "{}", R"("a10.5true")"},
         {R"({"cat": "a"})", "{}", R"("a")"},
         {R"({"cat": []})", "{}", R"("")"},
         {R"({"cat": [" a"]})", "{}", R"(" a")"},
         {R"({"cat": [" a", "b "]})", "{}", R"("ab")"},
         {R"({"cat": [1e21]})", "{}", R"("1000000000000000000000")"},
         {R"({"substr": ["sluice", 2]})", "{}", R"("uice")"},
         {R"({"substr": ["sluice", -3]})", "{}", R"("ice")"},
         {R"({"substr": ["sluice", 1, 2]})", "{}", R"("lu")"},
         {R"({"substr": ["sluice", 1, -2]})", "{}", R"("lui")"},
         {R"({"substr": ["sluice", 4, -4]})", "{}", R"("")"},
         {R"({"substr": ["sluice", -9]})", "{}", R"("sluice")"},
         {R"({"substr": ["äöü", 1, 1]})", "{}", R"("ö")"},
         {R"({"starts_with": ["abc", "ab"]})", "{}", "true"},
         {R"({"ends_with": ["abc", "ab"]})", "{}", "false"},
         {R"({"starts_with": ["abc"]})", "{}", "null"},
         {R"({"ends_with": [1, "a"]})", "{}", "null"},
         {R"({"sem_ver": ["1.2.3", "~", "1.2.0"]})", "{}", "true"},
         {R"({"sem_ver": [1.2, ">", "1.1"]})", "{}", "true"},
         {R"({"sem_ver": [null, "=", "1.0.0"]})", "{}", "null"},
         {R"({"sem_ver": ["1.0.0", "="]})", "{}", "null"}});
}

TEST(JsonLogicTest, SharedRules) {
  const json shared = json::parse(R"({"vip": {"==": [{"var": "tier"}, 1]}, "loop": {"$ref": "loop"}})");
  const json data = json::parse(R"({"tier": 1})");
  EXPECT_EQ(*ApplyLogic(json::parse(R"({"if": [{"$ref": "vip"}, "a", "b"]})"), data, &shared), "a");
  EXPECT_THAT(ApplyLogic(json::parse(R"({"$ref": "gone"})"), data, &shared),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("gone")));
  EXPECT_THAT(ApplyLogic(json::parse(R"({"$ref": "loop"})"), data, &shared),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(JsonLogicTest, RefusesUnknownOperators) {
  EXPECT_THAT(ApplyLogic(json::parse(R"({"nonsense": []})"), json::object()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nonsense")));
  EXPECT_TRUE(IsOperator("fractional"));
  EXPECT_TRUE(IsOperator("?:"));
  EXPECT_FALSE(IsOperator("log"));
}

TEST(JsonLogicTest, EndsWhatWouldGrowWithoutEnd) {
  json list = json::array();
  for (int i = 0; i < 400; ++i) list.push_back(i);
  const json data = {{"l", list}};
  const json many = json::parse(R"({"map": [{"var": "l"}, {"+": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]}]})");
  EXPECT_THAT(ApplyLogic(many, data), test::IsOk());
  // Some 17 steps for each of 400 elements.
  EXPECT_THAT(ApplyLogic(many, data, nullptr, {.max_steps = 5'000}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("5000 steps")));
  // A text that doubles with each element.
  const json twice =
      json::parse(R"({"reduce": [{"var": "l"}, {"cat": [{"var": "accumulator"}, {"var": "accumulator"}]}, "x"]})");
  EXPECT_THAT(ApplyLogic(twice, data), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too long")));
  json deep = 1;
  for (int i = 0; i < 200; ++i) deep = {{"!", json::array({deep})}};
  EXPECT_THAT(ApplyLogic(deep, data), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("deeper")));
}

}  // namespace
}  // namespace sluice::flags::flagd
