#include "flags/flagd/definitions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>

#include "tests/support/status_matchers.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;
using test::IsOk;
using test::StatusIs;
using testing::HasSubstr;

constexpr std::string_view kGood =
    R"({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"})";

// A document with one flag `f`: a good one, with `key` set to `value`.
std::string With(std::string_view key, std::string_view value) {
  json flag = json::parse(kGood);
  flag[std::string(key)] = json::parse(value);
  return json({{"flags", {{"f", flag}}}}).dump();
}
std::string Targeting(std::string_view rule) { return With("targeting", rule); }

// The fault of which the path is `field`; empty when there is none.
std::string FaultAt(const absl::Status& status, std::string_view field) {
  for (const FieldViolation& fault : GetErrorDetails(status).violations) {
    if (fault.field == field) return fault.description;
  }
  return {};
}

TEST(DefinitionsTest, ReadsMapsAndLists) {
  const auto map = ParseDefinitions(With("metadata", R"({"a": 1})"));
  ASSERT_THAT(map, IsOk());
  ASSERT_EQ(map->flags.size(), 1u);
  const Flag& flag = map->flags[0];
  EXPECT_EQ(flag.key, "f");
  EXPECT_TRUE(flag.enabled);
  EXPECT_EQ(flag.layer, Layer::kRemote);
  EXPECT_EQ(dynamic_cast<const FlagdTargeting&>(*flag.targeting).variants().size(), 2u);
  json listed = json::parse(kGood);
  listed["key"] = "f";
  const auto list = ParseDefinitions(json({{"flags", json::array({listed})}}).dump());
  ASSERT_THAT(list, IsOk());
  EXPECT_EQ(list->flags[0].key, "f");
  EXPECT_THAT(ParseDefinitions(R"({"flags": {}})"), IsOk());
  EXPECT_THAT(ParseDefinitions(R"({"flags": []})"), IsOk());
  EXPECT_THAT(ParseDefinitions(R"({"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": {}})"), IsOk());
}

TEST(DefinitionsTest, AcceptsWhatTheSchemaDoes) {
  for (const std::string& good :
       {With("defaultVariant", "null"),
        With("defaultVariant", R"("off")"),
        With("state", R"("DISABLED")"),
        With("metadata", R"({"s": "x", "n": 1.5, "b": false})"),
        With("variants", R"({"on": 1, "off": 2.5})"),
        With("variants", R"({"on": {"deep": [1, {"er": null}]}})"),
        With("variants", R"({"on": ""})"),
        Targeting("{}"),
        Targeting(R"({"if": [{"in": ["@x.com", {"var": "email"}]}, "on", null]})"),
        Targeting(R"({"fractional": [["on"], ["off", 3]]})"),
        Targeting(R"({"fractional": [{"var": "user"}, ["on", 0], ["off", {"-": [{"var": "$flagd.timestamp"}, 1]}]]})"),
        Targeting(R"({"fractional": [[{"if": [true, "on"]}, 1]]})"),
        Targeting(R"({"!": true})"),
        Targeting(R"({"!": [true]})"),
        Targeting(R"({"sem_ver": [{"var": "v"}, "^", "1.2.3-rc.1"]})"),
        Targeting(R"({"missing": ["a", "b"]})"),
        Targeting(R"({"missing_some": [1, ["a"]]})"),
        Targeting(R"({"<": [1, {"var": ["x", 2]}, 3]})"),
        Targeting(R"({"starts_with": [{"var": "x"}, {"cat": ["a", "b"]}]})"),
        Targeting(R"({"reduce": [[1], {"var": "current"}, 0]})"),
        Targeting(R"({"var": ["a", "on"]})")}) {
    EXPECT_THAT(ParseDefinitions(good), IsOk()) << good;
  }
}

TEST(DefinitionsTest, RefusesFaultsOfStructure) {
  const std::map<std::string, std::pair<std::string, std::string>> cases = {
      {"[]", {"document", "got array"}},
      {"{}", {"flags", "is missing"}},
      {R"({"flags": 3})", {"flags", "got 3; allowed"}},
      {R"({"flags": {"f": 3}})", {"flags.f", "got 3; allowed"}},
      {R"({"flags": {"": {}}})", {"flags[\"\"]", "0 bytes"}},
      {R"({"flags": [{"state": "ENABLED"}]})", {"flags[0].key", "is missing"}},
      {R"({"flags": {"f": {"variants": {"a": 1}}}})", {"flags.f.state", "is missing"}},
      {R"({"flags": {"f": {"state": "ENABLED"}}})", {"flags.f.variants", "is missing"}},
      {With("state", R"("ON")"), {"flags.f.state", "got \"ON\"; allowed \"ENABLED\" or \"DISABLED\""}},
      {With("variants", "{}"), {"flags.f.variants", "one variant or more"}},
      {With("variants", R"({"on": true, "off": 1})"), {"flags.f.variants.on", "must be of one"}},
      {With("variants", R"({"on": null})"), {"flags.f.variants.on", "got null"}},
      {With("variants", R"({"on": [1]})"), {"flags.f.variants.on", "got array"}},
      {With("variants", R"({"": true})"), {"flags.f.variants[\"\"]", "needs a name"}},
      {With("defaultVariant", R"("maybe")"), {"flags.f.defaultVariant", "got \"maybe\""}},
      {With("defaultVariant", "7"), {"flags.f.defaultVariant", "got 7"}},
      {With("targeting", "[]"), {"flags.f.targeting", "got array"}},
      {With("metadata", "[]"), {"flags.f.metadata", "got array"}},
      {With("metadata", R"({"a": {"b": 1}})"), {"flags.f.metadata.a", "got object"}},
      {R"({"flags": {}, "metadata": {"version": 7}})", {"metadata.version", "got 7; allowed is a string"}},
      {R"({"flags": {}, "$evaluators": []})", {"$evaluators", "got array"}},
  };
  for (const auto& [document, expected] : cases) {
    for (const bool strict : {true, false}) {
      const auto result = ParseDefinitions(document, {.refuse_bad_rules = strict});
      ASSERT_THAT(result, StatusIs(absl::StatusCode::kInvalidArgument)) << document;
      EXPECT_THAT(FaultAt(result.status(), expected.first), HasSubstr(expected.second)) << document << result.status();
    }
  }
}

TEST(DefinitionsTest, FaultsOfRulesAreRefusedOrWarned) {
  const std::map<std::string, std::pair<std::string, std::string>> cases = {
      {R"({"nonsense": []})", {"flags.f.targeting", "no operator \"nonsense\""}},
      {R"({"==": [1, 1], "!": 1})", {"flags.f.targeting", "got 2 keys"}},
      {R"({"if": [{"in": [1]}, "on"]})", {"flags.f.targeting.if[0].in", "got 1 operands; allowed 2"}},
      {R"({"==": 3})", {"flags.f.targeting[\"==\"]", "got 3; allowed is a list"}},
      {R"({"substr": ["a", 1, 2, 3]})", {"flags.f.targeting.substr", "allowed 2 to 3"}},
      {R"({"*": [1]})", {"flags.f.targeting[\"*\"]", "allowed 2 or more"}},
      {R"({"var": "$flagd.secret"})", {"flags.f.targeting.var", "flagKey and timestamp"}},
      {R"({"$ref": "gone"})", {"flags.f.targeting.$ref", "no such rule"}},
      {R"({"missing": [1]})", {"flags.f.targeting.missing[0]", "names of attributes"}},
      {R"({"missing_some": ["a", ["b"]]})", {"flags.f.targeting.missing_some[0]", "a number"}},
      {R"({"starts_with": [{"var": "x"}, 5]})", {"flags.f.targeting.starts_with[1]", "got 5"}},
      {R"({"ends_with": ["x"]})", {"flags.f.targeting.ends_with", "got 1 operands"}},
      {R"({"sem_ver": [{"var": "v"}, "===", "1.0.0"]})", {"flags.f.targeting.sem_ver[1]", "got \"===\""}},
      {R"({"sem_ver": [{"var": "v"}, "=", "one"]})", {"flags.f.targeting.sem_ver[2]", "got \"one\""}},
      {R"({"fractional": []})", {"flags.f.targeting.fractional", "1 or more"}},
      {R"({"fractional": ["user", ["on", 1]]})", {"flags.f.targeting.fractional[0]", "[variant, weight]"}},
      {R"({"fractional": [["on", 0.5]]})", {"flags.f.targeting.fractional[0][1]", "got 0.5"}},
      {R"({"fractional": [["on", -1]]})", {"flags.f.targeting.fractional[0][1]", "got -1"}},
      {R"({"fractional": [["on", "5"]]})", {"flags.f.targeting.fractional[0][1]", "got \"5\""}},
      {R"({"fractional": [["on", 2147483647], ["off", 1]]})", {"flags.f.targeting.fractional", "2147483648"}},
  };
  for (const auto& [rule, expected] : cases) {
    const auto strict = ParseDefinitions(Targeting(rule));
    ASSERT_THAT(strict, StatusIs(absl::StatusCode::kInvalidArgument)) << rule;
    EXPECT_THAT(FaultAt(strict.status(), expected.first), HasSubstr(expected.second)) << rule << strict.status();
    const auto lenient = ParseDefinitions(Targeting(rule), {.refuse_bad_rules = false});
    ASSERT_THAT(lenient, IsOk()) << rule;
    EXPECT_THAT(lenient->warnings, testing::Contains(HasSubstr(expected.first))) << rule;
  }
}

TEST(DefinitionsTest, SharedRulesMustNotLeadBackToThemselves) {
  const auto result = ParseDefinitions(
      R"({"flags": {}, "$evaluators": {"a": {"!": {"$ref": "b"}}, "b": {"!": {"$ref": "a"}}, "c": {"!": 1}}})");
  ASSERT_THAT(result, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_NE(FaultAt(result.status(), "$evaluators.a"), "");
  EXPECT_NE(FaultAt(result.status(), "$evaluators.b"), "");
  EXPECT_EQ(FaultAt(result.status(), "$evaluators.c"), "");
}

TEST(DefinitionsTest, RefusesWhatIsNoPlainJson) {
  const auto fault = [](std::string_view text, std::string_view field = "document") {
    return FaultAt(ParseDefinitions(text).status(), field);
  };
  EXPECT_THAT(fault(""), HasSubstr("line 1, column 1"));
  EXPECT_THAT(fault("{\n \"flags\": }", "flags"), HasSubstr("line 2, column 11"));
  EXPECT_THAT(fault(R"({"flags": {"a": 1, "b": 2, "a": 3}})", "flags.a"), HasSubstr("appears twice"));
  EXPECT_THAT(fault("{\"flags\": {\"\xff\": 1}}", "flags"), HasSubstr("UTF-8"));
  EXPECT_THAT(fault(R"({"flags": {"a": 1e999}})", "flags.a"), HasSubstr("1e999"));
  EXPECT_THAT(fault(R"({"flags": {}} {})"), HasSubstr("line 1"));
  const std::string deep(100'000, '[');
  EXPECT_THAT(ParseDefinitions(R"({"flags": )" + deep),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("deeper than 64 levels")));
  EXPECT_THAT(fault(std::string((4 << 20) + 1, ' ')), HasSubstr("got 4194305 bytes; allowed up to 4194304"));
}

TEST(DefinitionsTest, BoundsTheNumberOfFlagsAndOfFaultsNamed) {
  json flags = json::object();
  for (int i = 0; i <= 10'000; ++i) flags["f" + std::to_string(i)] = json::parse(kGood);
  EXPECT_THAT(FaultAt(ParseDefinitions(json({{"flags", flags}}).dump()).status(), "flags"),
              HasSubstr("got 10001 flags; allowed up to 10000"));
  flags.erase("f10000");
  EXPECT_THAT(ParseDefinitions(json({{"flags", flags}}).dump()), IsOk());
  for (json& flag : flags) flag.erase("state");
  const auto faults = GetErrorDetails(ParseDefinitions(json({{"flags", flags}}).dump()).status()).violations;
  EXPECT_EQ(faults.size(), 21u);
  EXPECT_THAT(faults.back().description, HasSubstr("9980 more"));
}

TEST(DefinitionsTest, OneFaultRefusesTheWholeDocument) {
  json document = {{"flags", {{"good", json::parse(kGood)}, {"bad", {{"state", "ENABLED"}}}}}};
  EXPECT_FALSE(ParseDefinitions(document.dump()).ok());
}

class FixedHeaders final : public HeaderSource {
 public:
  std::string_view Header(std::string_view name) const override { return name == "x-beta" ? "yes" : ""; }
};

TEST(DefinitionsTest, RulesSeeTheNativeContext) {
  const auto ask = [](std::string_view rule, const EvaluationContext& context) {
    const auto definitions = ParseDefinitions(Targeting(rule));
    EXPECT_THAT(definitions, IsOk());
    const auto result = definitions->flags[0].targeting->Evaluate("f", context);
    return result.variant == nullptr ? "" : result.variant->name;
  };
  const FixedHeaders headers;
  const EvaluationContext context{
      .targeting_key = "u1", .tenant = "t", .user = "u", .model = "m", .qos_class = "c", .headers = &headers};
  for (const std::string_view attribute : {"targetingKey", "tenant", "user", "model", "class", "headers.x-beta"}) {
    const std::string rule = R"({"if": [{"var": ")" + std::string(attribute) + R"("}, "on", "off"]})";
    EXPECT_EQ(ask(rule, context), "on") << attribute;
    EXPECT_EQ(ask(rule, {}), "off") << attribute;
  }
  // A client's attributes stand in for all of them but the headers.
  const json attributes = {{"tier", 1}};
  EvaluationContext client = context;
  client.attributes = &attributes;
  EXPECT_EQ(ask(R"({"if": [{"var": "tenant"}, "on", "off"]})", client), "off");
  EXPECT_EQ(ask(R"({"if": [{"and": [{"var": "tier"}, {"var": "headers.x-beta"}]}, "on", "off"]})", client), "on");
}

TEST(DefinitionsTest, StaticContextGoesOverTheRequests) {
  const auto definitions = ParseDefinitions(Targeting(R"({"if": [{"==": [{"var": "region"}, "eu"]}, "on", "off"]})"),
                                            {.static_context = {{"region", "eu"}}});
  ASSERT_THAT(definitions, IsOk());
  const json attributes = {{"region", "us"}};
  EXPECT_EQ(definitions->flags[0].targeting->Evaluate("f", {.attributes = &attributes}).variant->name, "on");
}

TEST(DefinitionsTest, TellsVersionsOfAFlagApart) {
  const auto parse = [](const std::string& text) {
    return std::dynamic_pointer_cast<const FlagdTargeting>(ParseDefinitions(text)->flags[0].targeting);
  };
  const auto one = parse(With("defaultVariant", R"("on")"));
  EXPECT_TRUE(one->SameDefinition(*parse(With("defaultVariant", R"("on")"))));
  EXPECT_FALSE(one->SameDefinition(*parse(With("defaultVariant", R"("off")"))));
  EXPECT_FALSE(one->SameDefinition(*parse(With("metadata", R"({"a": 1})"))));
  EXPECT_FALSE(one->SameDefinition(*parse(Targeting(R"({"!": 1})"))));
  EXPECT_FALSE(one->SameDefinition(*parse(With("variants", R"({"on": true})"))));
}

}  // namespace
}  // namespace sluice::flags::flagd
