// The scenarios of flagd-testbed's evaluator (fractional v2, sem_ver, strings, errors, metadata, disabled, zero values,
// no default, shared rules, targeting), written from their behaviour. Where a bucket counts, flag key and targeting key
// are theirs, so that the same user gets the same variant here as from flagd.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>

#include "flags/flag_set.h"
#include "flags/flagd/definitions.h"
#include "tests/support/status_matchers.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

struct Answer {
  json value;  // null: the code's default
  std::string_view reason;
  std::string error;  // the code in front of the colon
};

// Asks a flag of `document` for `attributes`.
Answer Ask(std::string_view document, std::string_view key, const json& attributes) {
  auto definitions = ParseDefinitions(document, {.refuse_bad_rules = false});
  EXPECT_THAT(definitions, test::IsOk());
  if (!definitions.ok()) return {};
  for (const Flag& flag : definitions->flags) {
    if (flag.key != key) continue;
    EvaluationContext context{.attributes = &attributes};
    context.now = WallTime(std::chrono::seconds(1'700'000'000));
    const Targeting::Result result = flag.targeting->Evaluate(flag.key, context);
    return {result.variant == nullptr ? json() : *result.variant->value, ReasonName(result.reason),
            result.error.substr(0, result.error.find(':'))};
  }
  ADD_FAILURE() << "no flag " << key;
  return {};
}

// A document with one string flag whose variants are worth their names.
std::string OneFlag(std::string_view key, std::initializer_list<std::string_view> variants, std::string_view targeting,
                    std::string_view fallback = "fallback") {
  json names = json::object();
  for (const std::string_view name : variants) names[std::string(name)] = name;
  names[std::string(fallback)] = fallback;
  json flag = {{"state", "ENABLED"}, {"variants", names}, {"defaultVariant", fallback}};
  flag["targeting"] = json::parse(targeting);
  return json({{"flags", {{std::string(key), flag}}}}).dump();
}

struct Row {
  json attributes;
  std::string_view value;
};

void ExpectAll(const std::string& document, std::string_view key, std::initializer_list<Row> rows,
               std::string_view reason = "TARGETING_MATCH") {
  for (const Row& row : rows) {
    const Answer answer = Ask(document, key, row.attributes);
    EXPECT_EQ(answer.value, row.value) << key << " " << row.attributes;
    EXPECT_EQ(answer.reason, reason) << key << " " << row.attributes;
  }
}

json UserNamed(std::string_view name) { return {{"user", {{"name", name}}}}; }
json Key(std::string_view key) { return {{"targetingKey", key}}; }

constexpr std::string_view kSuits = R"(["clubs", 25], ["diamonds", 25], ["hearts", 25], ["spades", 25])";

TEST(FractionalConformance, BucketsByAnExpression) {
  const std::string rule =
      R"({"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "user.name"}]}, )" + std::string(kSuits) + "]}";
  ExpectAll(OneFlag("fractional-flag", {"clubs", "diamonds", "hearts", "spades"}, rule), "fractional-flag",
            {{UserNamed("jack"), "hearts"},
             {UserNamed("queen"), "spades"},
             {UserNamed("ten"), "clubs"},
             {UserNamed("nine"), "diamonds"},
             {UserNamed("3"), "clubs"}});
}

TEST(FractionalConformance, SharedSeedPutsAUserIntoTheSameBucketOfTwoFlags) {
  const std::string rule =
      R"({"fractional": [{"cat": ["shared-seed", {"var": "user.name"}]}, )" + std::string(kSuits) + "]}";
  for (const std::string_view key : {"a", "b"}) {
    ExpectAll(OneFlag(key, {"clubs", "diamonds", "hearts", "spades"}, rule), key,
              {{UserNamed("seven"), "hearts"},
               {UserNamed("eight"), "diamonds"},
               {UserNamed("nine"), "clubs"},
               {UserNamed("two"), "spades"}});
  }
}

TEST(FractionalConformance, Shorthand) {
  ExpectAll(OneFlag("fractional-flag-shorthand", {"heads", "tails"}, R"({"fractional": [["heads"], ["tails", 1]]})"),
            "fractional-flag-shorthand", {{Key("jon@company.com"), "heads"}, {Key("jane@company.com"), "tails"}});
  ExpectAll(OneFlag("only", {"single"}, R"({"fractional": [["single", 1]]})"), "only", {{Key("anybody"), "single"}});
}

TEST(FractionalConformance, EdgesOfTheHash) {
  ExpectAll(
      OneFlag("edge", {"lower", "upper"}, R"({"fractional": [{"var": "targetingKey"}, ["lower", 50], ["upper", 50]]})"),
      "edge",
      {{Key("ejOoVL"), "lower"},
       {Key("bY9fO-"), "lower"},
       {Key("SI7p-"), "lower"},
       {Key("6LvT0"), "upper"},
       {Key("ceQdGm"), "upper"}});
}

TEST(FractionalConformance, SmallestShareOfTheLargestSum) {
  // One part in 2^31 - 1: only hashes below 2 fall in it.
  ExpectAll(OneFlag("tiny", {"one", "rest"},
                    R"({"fractional": [{"var": "targetingKey"}, ["one", 1], ["rest", 2147483646]]})"),
            "tiny", {{Key("ejOoVL"), "one"}, {Key("bY9fO-"), "one"}, {Key("SI7p-"), "rest"}, {Key("ceQdGm"), "rest"}});
  ExpectAll(OneFlag("over", {"one", "rest"},
                    R"({"fractional": [{"var": "targetingKey"}, ["one", 2], ["rest", 2147483646]]})"),
            "over", {{Key("ejOoVL"), "fallback"}}, "DEFAULT");
}

TEST(FractionalConformance, ExpressionsAsVariantsAndWeights) {
  const std::string variant = OneFlag("v", {"premium", "standard"}, R"({"fractional": [{"var": "targetingKey"},
      [{"if": [{"==": [{"var": "tier"}, "premium"]}, "premium", "standard"]}, 50], ["standard", 50]]})");
  const auto at = [](std::string_view key, std::string_view tier) {
    return json{{"targetingKey", key}, {"tier", tier}};
  };
  ExpectAll(variant, "v",
            {{at("jon@company.com", "premium"), "premium"},
             {at("jon@company.com", "basic"), "standard"},
             {at("user1", "premium"), "standard"},
             {at("user1", "basic"), "standard"}});
  const std::string weight = OneFlag("w", {"red", "blue"}, R"({"fractional": [{"var": "targetingKey"},
      ["red", {"if": [{"==": [{"var": "tier"}, "premium"]}, 100, 0]}], ["blue", 10]]})");
  ExpectAll(weight, "w",
            {{at("jon@company.com", "premium"), "red"},
             {at("jon@company.com", "basic"), "blue"},
             {at("user1", "premium"), "red"},
             {at("user1", "basic"), "blue"}});
  const std::string color =
      OneFlag("c", {"red", "green", "blue"},
              R"({"fractional": [{"var": "targetingKey"}, [{"var": "color"}, 50], ["blue", 50]]})");
  ExpectAll(color, "c",
            {{{{"targetingKey", "jon@company.com"}, {"color", "red"}}, "red"},
             {{{"targetingKey", "jon@company.com"}, {"color", "green"}}, "green"},
             {{{"targetingKey", "user1"}, {"color", "red"}}, "blue"}});
  // A colour that is no variant is an error; no colour at all leaves it to the default.
  EXPECT_EQ(Ask(color, "c", {{"targetingKey", "jon@company.com"}, {"color", "yellow"}}).error, "GENERAL");
  EXPECT_EQ(Ask(color, "c", Key("jon@company.com")).value, "fallback");
}

TEST(FractionalConformance, AsACondition) {
  const std::string_view rule = R"({"if": [{"fractional": [[false, %], [true, @]]}, "big", "small"]})";
  const auto with = [&](std::string_view no, std::string_view yes) {
    std::string text(rule);
    text.replace(text.find('%'), 1, no);
    text.replace(text.find('@'), 1, yes);
    return OneFlag("condition", {"big", "small"}, text);
  };
  ExpectAll(with("0", "100"), "condition", {{Key("somebody"), "big"}});
  ExpectAll(with("100", "0"), "condition", {{Key("somebody"), "small"}});
}

TEST(FractionalConformance, WhatLeavesItToTheDefault) {
  const std::string missing =
      OneFlag("m", {"one", "two"}, R"({"fractional": [{"var": "gone"}, ["one", 50], ["two", 50]]})");
  ExpectAll(missing, "m", {{json::object(), "fallback"}, {Key(""), "fallback"}, {{{"targetingKey", 7}}, "fallback"}},
            "DEFAULT");
  const std::string zero =
      OneFlag("z", {"one", "two"}, R"({"fractional": [{"var": "targetingKey"}, ["one", 0], ["two", 0]]})");
  ExpectAll(zero, "z", {{Key("any-user"), "fallback"}}, "DEFAULT");
  const std::string odd =
      OneFlag("o", {"one", "two"}, R"({"fractional": [{"var": "targetingKey"}, ["one", 0.5], ["two", 1]]})");
  ExpectAll(odd, "o", {{Key("any-user"), "fallback"}}, "DEFAULT");
  const std::string negative =
      OneFlag("n", {"one", "two"}, R"({"fractional": [{"var": "targetingKey"}, ["one", -50], ["two", 100]]})");
  ExpectAll(negative, "n", {{Key("any-user"), "two"}});
}

json Version(json version) { return {{"version", std::move(version)}}; }

TEST(SemVerConformance, OrderAndRanges) {
  const std::string order = OneFlag("order", {"equal", "greater", "lesser", "none"}, R"({"if": [
      {"sem_ver": [{"var": "version"}, "=", "2.0.0"]}, "equal",
      {"sem_ver": [{"var": "version"}, ">", "2.0.0"]}, "greater",
      {"sem_ver": [{"var": "version"}, "<", "2.0.0"]}, "lesser", "none"]})");
  ExpectAll(order, "order",
            {{Version("2.0.0"), "equal"},
             {Version("2.1.0"), "greater"},
             {Version("1.9.0"), "lesser"},
             {Version("2.0.0-alpha"), "lesser"},
             {Version("2.0.0.0"), "none"}});
  const std::string range = OneFlag("range", {"minor", "major", "none"}, R"({"if": [
      {"sem_ver": [{"var": "version"}, "~", "3.0.0"]}, "minor",
      {"sem_ver": [{"var": "version"}, "^", "3.0.0"]}, "major",
      "none"]})");
  ExpectAll(range, "range", {{Version("3.0.1"), "minor"}, {Version("3.1.0"), "major"}, {Version("4.0.0"), "none"}});
}

TEST(SemVerConformance, WritingsOfAVersion) {
  const auto flag = [](std::string_view op, std::string_view target) {
    return OneFlag("f", {"match", "no-match"},
                   R"({"if": [{"sem_ver": [{"var": "version"}, ")" + std::string(op) + R"(", ")" + std::string(target) +
                       R"("]}, "match", "no-match"]})");
  };
  ExpectAll(flag("=", "v1.0.0"), "f",
            {{Version("1.0.0"), "match"},
             {Version("v1.0.0"), "match"},
             {Version("V1.0.0"), "match"},
             {Version("2.0.0"), "no-match"}});
  ExpectAll(flag("^", "1"), "f",
            {{Version("1.5.0"), "match"},
             {Version("1.0"), "match"},
             {Version("1"), "match"},
             {Version(1), "match"},
             {Version(1.2), "match"},
             {Version("2.0.0"), "no-match"}});
  ExpectAll(flag(">", "1.1"), "f",
            {{Version(1.2), "match"},
             {Version(1.1), "no-match"},
             {Version(2), "match"},
             {Version(1), "no-match"},
             {Version("1.2"), "match"}});
  ExpectAll(flag("=", "1.0.0+build"), "f",
            {{Version("1.0.0"), "match"}, {Version("1.0.0+other"), "match"}, {Version("2.0.0"), "no-match"}});
}

TEST(SemVerConformance, WhatIsNoComparisonLeavesItToTheDefault) {
  for (const std::string_view rule :
       {R"({"sem_ver": [{"var": "version"}, "=", "not-a-version"]})",
        R"({"sem_ver": [{"var": "version"}, "===", "1.0.0"]})", R"({"sem_ver": [{"var": "version"}, "="]})"}) {
    ExpectAll(OneFlag("f", {"true", "false"}, rule), "f", {{Version("1.0.0"), "fallback"}}, "DEFAULT");
  }
  // What it answers otherwise is a boolean, which names the variants "true" and "false".
  ExpectAll(OneFlag("f", {"true", "false"}, R"({"sem_ver": [{"var": "version"}, "=", "1.0.0"]})"), "f",
            {{Version("1.0.0"), "true"}, {Version("1.0.1"), "false"}});
}

TEST(StringConformance, StartsAndEnds) {
  const std::string flag =
      OneFlag("f", {"prefix", "postfix", "none"}, R"({"if": [{"starts_with": [{"var": "id"}, "abc"]},
      "prefix", {"if": [{"ends_with": [{"var": "id"}, "xyz"]}, "postfix", "none"]}]})");
  ExpectAll(flag, "f",
            {{{{"id", "abcdef"}}, "prefix"},
             {{{"id", "uvwxyz"}}, "postfix"},
             {{{"id", "abcxyz"}}, "prefix"},
             {{{"id", "lmnopq"}}, "none"}});
  for (const std::string_view rule :
       {R"({"starts_with": [{"var": "num"}, "abc"]})", R"({"ends_with": [{"var": "num"}, "x"]})",
        R"({"starts_with": ["abc"]})", R"({"ends_with": ["xyz"]})"}) {
    ExpectAll(OneFlag("f", {"true", "false"}, rule), "f", {{{{"num", 123}}, "fallback"}}, "DEFAULT");
  }
}

constexpr std::string_view kTargeted = R"({
  "flags": {
    "bool":   {"state": "ENABLED", "variants": {"zero": false, "other": true}, "defaultVariant": "zero"},
    "string": {"state": "ENABLED", "variants": {"zero": "", "other": "x"}, "defaultVariant": "zero"},
    "int":    {"state": "ENABLED", "variants": {"zero": 0, "other": 1}, "defaultVariant": "zero"},
    "float":  {"state": "ENABLED", "variants": {"zero": 0.0, "other": 1.5}, "defaultVariant": "zero"},
    "object": {"state": "ENABLED", "variants": {"zero": {}, "other": {"a": 1}}, "defaultVariant": "zero"},
    "aimed":  {"state": "ENABLED", "variants": {"zero": 0, "other": 1}, "defaultVariant": "zero",
               "targeting": {"if": [{ "$ref" : "is_admin" }, "zero"]}},
    "no-default": {"state": "ENABLED", "variants": {"on": true, "off": false}},
    "null-default": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": null},
    "no-default-aimed": {"state": "ENABLED", "variants": {"normal": "CFO", "special": "CEO"},
               "targeting": {"if": [{"$ref": "is_admin"}, "special", null]}},
    "ref-to-nothing": {"state": "ENABLED", "variants": {"a": "a", "b": "b"}, "defaultVariant": "a",
               "targeting": {"if": [{"$ref": "nobody"}, "a", "b"]}},
    "odd-answer": {"state": "ENABLED", "variants": {"a": "a"}, "defaultVariant": "a", "targeting": {"cat": ["b"]}},
    "empty-targeting": {"state": "ENABLED", "variants": {"a": "a"}, "defaultVariant": "a", "targeting": {}},
    "described": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on",
               "metadata": {"string": "1.0.2", "integer": 2, "float": 0.1, "boolean": true, "version": "flag's"}}
  },
  "$evaluators": {"is_admin": {"==": ["admin@example.com", {"var": ["email"]}]}}
})";

TEST(EvaluationConformance, ZeroValuesAreValues) {
  const json nobody = json::object(), admin = {{"email", "admin@example.com"}};
  for (const auto& [key, value] : std::map<std::string, json>{
           {"bool", false}, {"string", ""}, {"int", 0}, {"float", 0.0}, {"object", json::object()}}) {
    const Answer answer = Ask(kTargeted, key, nobody);
    EXPECT_EQ(answer.value, value) << key;
    EXPECT_EQ(answer.reason, "STATIC") << key;
  }
  EXPECT_EQ(Ask(kTargeted, "aimed", admin).value, 0);
  EXPECT_EQ(Ask(kTargeted, "aimed", admin).reason, "TARGETING_MATCH");
  EXPECT_EQ(Ask(kTargeted, "aimed", nobody).value, 0);
  EXPECT_EQ(Ask(kTargeted, "aimed", nobody).reason, "DEFAULT");
  EXPECT_EQ(Ask(kTargeted, "empty-targeting", nobody).reason, "STATIC");
}

TEST(EvaluationConformance, WithoutDefaultTheCodeDecides) {
  for (const std::string_view key : {"no-default", "null-default", "no-default-aimed"}) {
    const Answer answer = Ask(kTargeted, key, {{"email", "nobody@example.com"}});
    EXPECT_TRUE(answer.value.is_null()) << key;
    EXPECT_EQ(answer.reason, "DEFAULT") << key;
  }
  EXPECT_EQ(Ask(kTargeted, "no-default-aimed", {{"email", "admin@example.com"}}).value, "CEO");
}

TEST(EvaluationConformance, Errors) {
  EXPECT_EQ(Ask(kTargeted, "ref-to-nothing", json::object()).error, "PARSE_ERROR");
  EXPECT_EQ(Ask(kTargeted, "ref-to-nothing", json::object()).reason, "ERROR");
  EXPECT_EQ(Ask(kTargeted, "odd-answer", json::object()).error, "GENERAL");
}

TEST(EvaluationConformance, TargetingKeyAndInjectedProperties) {
  const std::string key =
      OneFlag("f", {"hit", "miss"}, R"({"if": [{"==": [{"var": "targetingKey"}, "5c3d8535"]}, "hit", null]})", "miss");
  ExpectAll(key, "f", {{Key("5c3d8535"), "hit"}});
  ExpectAll(key, "f", {{Key("f20bd32d"), "miss"}}, "DEFAULT");
  const std::string time = OneFlag("f", {"late", "early"},
                                   R"({"if": [{">=": [{"var": "$flagd.timestamp"}, 1700000000]}, "late", "early"]})");
  ExpectAll(time, "f", {{json::object(), "late"}, {{{"$flagd", {{"timestamp", 1}}}}, "late"}});
}

TEST(EvaluationConformance, Metadata) {
  const auto find = [](const Definitions& d, std::string_view key) {
    for (const Flag& flag : d.flags) {
      if (flag.key == key) return dynamic_cast<const FlagdTargeting&>(*flag.targeting).Metadata();
    }
    return json();
  };
  auto plain = ParseDefinitions(kTargeted, {.refuse_bad_rules = false});
  ASSERT_THAT(plain, test::IsOk());
  EXPECT_EQ(find(*plain, "bool"), json::object());
  EXPECT_EQ(find(*plain, "described")["integer"], 2);
  json document = json::parse(kTargeted);
  document["metadata"] = {{"flagSetId", "set"}, {"version", "set's"}};
  auto merged = ParseDefinitions(document.dump(), {.refuse_bad_rules = false});
  ASSERT_THAT(merged, test::IsOk());
  EXPECT_EQ(find(*merged, "bool"), document["metadata"]);
  EXPECT_EQ(find(*merged, "described")["version"], "flag's");
  EXPECT_EQ(find(*merged, "described")["flagSetId"], "set");
  EXPECT_EQ(merged->metadata, document["metadata"]);
}

TEST(EvaluationConformance, DisabledFlagsAreOutWithReasonDisabled) {
  auto definitions = ParseDefinitions(
      R"({"flags": {"f": {"state": "DISABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}})");
  ASSERT_THAT(definitions, test::IsOk());
  auto set = FlagSet::Create({.flags = definitions->flags}, 1);
  ASSERT_THAT(set, test::IsOk());
  const Decision decision = (*set)->Evaluate("f", {});
  EXPECT_EQ(decision.reason, Reason::kDisabled);
  EXPECT_EQ(decision.variant_value, nullptr);
  EXPECT_FALSE(decision.in);
}

}  // namespace
}  // namespace sluice::flags::flagd
