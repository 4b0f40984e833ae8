#include "services/flag_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/services/flag_documents.h"

namespace sluice::services {
namespace {

using nlohmann::json;
using test::FlagSpec;
using test::MakeFlags;

FlagAnswer Ask(const flags::FlagSet& set, std::string_view key, const json& attributes = json::object()) {
  return AnswerFlag(set, key, attributes, WallTime(std::chrono::seconds(1'700'000'000)));
}

TEST(FlagAnswersTest, FlagdFlags) {
  const auto set = MakeFlags();
  const FlagAnswer plain = Ask(*set, "bool");
  EXPECT_EQ(plain.value, true);
  EXPECT_EQ(plain.variant, "on");
  EXPECT_EQ(plain.reason, "STATIC");
  EXPECT_EQ(plain.metadata, json({{"flagSetId", "tests"}}));
  const FlagAnswer aimed = Ask(*set, "string", {{"leaving", true}});
  EXPECT_EQ(aimed.value, "");
  EXPECT_EQ(aimed.reason, "TARGETING_MATCH");
  EXPECT_EQ(aimed.metadata["owner"], "x");
  EXPECT_EQ(Ask(*set, "string").reason, "DEFAULT");
  EXPECT_EQ(Ask(*set, "string").value, "hello");
}

TEST(FlagAnswersTest, WhatHasNoValueLeavesItToTheClient) {
  const auto set = MakeFlags();
  for (const auto& [key, reason] : {std::pair{"no-default", "DEFAULT"}, {"disabled", "DISABLED"}}) {
    const FlagAnswer answer = Ask(*set, key);
    EXPECT_TRUE(answer.value.is_null()) << key;
    EXPECT_EQ(answer.variant, "") << key;
    EXPECT_EQ(answer.reason, reason) << key;
    EXPECT_EQ(answer.error, FlagError::kNone) << key;
  }
}

TEST(FlagAnswersTest, Errors) {
  const auto set = MakeFlags();
  EXPECT_EQ(Ask(*set, "nowhere").error, FlagError::kFlagNotFound);
  EXPECT_EQ(Ask(*set, "broken").error, FlagError::kParseError);
  EXPECT_THAT(Ask(*set, "broken").message, testing::HasSubstr("gone"));
  EXPECT_EQ(Ask(*set, "wrong").error, FlagError::kGeneral);
  EXPECT_THAT(Ask(*set, "wrong").message, testing::HasSubstr("none"));
}

TEST(FlagAnswersTest, NativeFlagsAnswerWithABoolean) {
  const auto set = MakeFlags();
  size_t in = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string key = "user-" + std::to_string(i);
    const FlagAnswer answer = Ask(*set, "native", {{"targetingKey", key}});
    const bool expected = set->Evaluate("native", {.targeting_key = key}).in;
    EXPECT_EQ(answer.value, expected);
    EXPECT_EQ(answer.variant, expected ? "on" : "off");
    EXPECT_EQ(answer.reason, "SPLIT");
    in += expected ? 1 : 0;
  }
  EXPECT_GT(in, 50u);
  EXPECT_LT(in, 150u);
  EXPECT_EQ(Ask(*set, "native").reason, "TARGETING_KEY_MISSING");
  EXPECT_EQ(Ask(*set, "native").value, false);
  EXPECT_EQ(Ask(*set, "parent").reason, "STATIC");
  EXPECT_EQ(Ask(*set, "shadow").value, false) << "dry_run behaves as if out";
  EXPECT_EQ(Ask(*set, "shadow").metadata["dry_run"], "on");
}

// A client keeps a STATIC answer for every user: below a parent that splits it would be wrong.
TEST(FlagAnswersTest, StaticOnlyWhereNothingLooksAtTheContext) {
  flags::FlagSetSpec spec;
  spec.flags.push_back({.key = "parent", .enabled = true, .rollout_bps = 5000});
  spec.flags.push_back({.key = "child", .enabled = true, .rollout_bps = flags::kBuckets, .parent = "parent"});
  const auto set = MakeFlags(spec);
  for (int i = 0; i < 50; ++i) {
    EXPECT_NE(Ask(*set, "child", {{"targetingKey", std::to_string(i)}}).reason, "STATIC");
  }
  spec.flags[0].rollout_bps = flags::kBuckets;
  spec.flags[0].deny = std::make_shared<const flags::KeySet>(flags::KeySet{"nobody"});
  EXPECT_EQ(Ask(*MakeFlags(spec), "parent", {{"targetingKey", "a"}}).reason, "DEFAULT");
  EXPECT_EQ(Ask(*MakeFlags(spec), "parent", {{"targetingKey", "a"}}).value, true);
  EXPECT_EQ(Ask(*MakeFlags(spec), "parent", {{"targetingKey", "nobody"}}).value, false);
}

TEST(FlagAnswersTest, HeldOutFlagsAnswerFalseOrLeaveItToTheClient) {
  flags::FlagSetSpec spec = FlagSpec();
  spec.kill_switch = true;
  const auto set = MakeFlags(spec);
  for (const auto* key : {"native", "bool"}) {
    EXPECT_EQ(Ask(*set, key).value, false) << key;
    EXPECT_EQ(Ask(*set, key).reason, "EMERGENCY") << key;
  }
  for (const auto* key : {"string", "int", "object"}) {
    EXPECT_TRUE(Ask(*set, key).value.is_null()) << key;
    EXPECT_EQ(Ask(*set, key).reason, "DISABLED") << key;
  }
}

TEST(FlagAnswersTest, RulesSeeTheClientsHeaders) {
  const auto set = MakeFlags(FlagSpec(R"({"flags": {"f": {"state": "ENABLED", "variants": {"a": "a", "b": "b"},
      "defaultVariant": "a", "targeting": {"if": [{"==": [{"var": "headers.x-beta"}, "yes"]}, "b", null]}}}})"));
  EXPECT_EQ(Ask(*set, "f", {{"headers", {{"x-beta", "yes"}}}}).value, "b");
  EXPECT_EQ(Ask(*set, "f", {{"headers", "yes"}}).value, "a");
  EXPECT_EQ(Ask(*set, "f").value, "a");
}

TEST(FlagAnswersTest, AllOfThem) {
  const auto answers = AnswerAllFlags(*MakeFlags(), json::object(), WallTime{});
  EXPECT_EQ(answers.size(), 12u);
  EXPECT_TRUE(
      std::is_sorted(answers.begin(), answers.end(), [](const auto& a, const auto& b) { return a.key < b.key; }));
}

TEST(FlagAnswersTest, Changes) {
  const auto before = MakeFlags();
  EXPECT_THAT(CompareFlags(*before, *MakeFlags()), testing::IsEmpty());
  flags::FlagSetSpec spec = FlagSpec();
  std::erase_if(spec.flags, [](const flags::Flag& f) { return f.key == "int"; });
  for (flags::Flag& flag : spec.flags) {
    if (flag.key == "parent") flag.rollout_bps = 100;
    if (flag.key == "bool") flag.enabled = false;
  }
  spec.flags.push_back({.key = "new"});
  EXPECT_EQ(CompareFlags(*before, *MakeFlags(spec)),
            (FlagChanges{
                {"int", "delete"}, {"new", "write"}, {"bool", "update"}, {"parent", "update"}, {"native", "update"}}));
  flags::FlagSetSpec killed = FlagSpec();
  killed.kill_switch = true;
  EXPECT_EQ(CompareFlags(*before, *MakeFlags(killed)).size(), 12u);
}

}  // namespace
}  // namespace sluice::services
