#include "flags/explanation.h"

#include <chrono>

#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

namespace sluice::flags {
namespace {

TEST(ExplanationTest, TellsTheWholeChain) {
  Flag top = On("top", 10000), exp = On("exp", 5000, "top");
  exp.layer = Layer::kOverride;
  exp.rollout_layer = Layer::kEnv;
  exp.schedule.start = WallTime(std::chrono::sys_days(std::chrono::year(2026) / 1 / 1));
  exp.allow = Keys({"a", "b"});
  exp.variants = {Of("control", "c", 26), Of("treatment", "t", 74)};
  exp.rules = {{.name = "eu", .when = {{.attribute = Condition::Attribute::kTenant, .text = "eu"}}},
               {.name = "batch", .when = {{.attribute = Condition::Attribute::kClass, .text = "batch"}}}};
  const auto set = Make({.flags = {top, exp},
                         .inert = {{"exp", "rollout_percentage", Layer::kFile, "1 %", Layer::kEnv, "env X holds 50 %"},
                                   {"top", "enabled", Layer::kFile, "false", Layer::kEnv, "env Y holds true"}}});
  const EvaluationContext context{
      .targeting_key = "bob", .tenant = "us", .now = std::chrono::sys_days(std::chrono::year(2026) / 2 / 1)};
  Explanation why = set->ExplainFor("exp", context);
  why.stale = {"remote"};
  EXPECT_EQ(why.Text(),
            "exp=control;reason=SPLIT;bucket=4467;threshold=5000;layer=env;epoch=7\n"
            "  layers: definition file, enabled by override, 50 % by env\n"
            "  file rollout_percentage 1 % of exp is inert: env X holds 50 %\n"
            "  stale: remote, the last known state is used\n"
            "  schedule: 2026-01-01T00:00:00Z to open: inside\n"
            "  lists: the key is in none of allow (2 keys), deny (0 keys)\n"
            "  rule eu: no match: tenant equals \"eu\": found \"us\"\n"
            "  rule batch: no match: class equals \"batch\": not given\n"
            "  percentage: salt \"exp\", hash_version 2, hash e7eb40e3, bucket 4467, threshold 5000\n"
            "  variants: salt \"split-exp\", hash_version 2, hash f020a1bd, bucket 397, threshold 2600\n"
            "parent top=on;reason=STATIC;layer=file;epoch=7\n"
            "  layers: definition file, enabled by file, 100 % by file\n"
            "  file enabled false of top is inert: env Y holds true");
  EXPECT_EQ(Explain(why.decision), Explain(set->Evaluate("exp", context)));
}

TEST(ExplanationTest, AMatchingRuleEndsTheChain) {
  Flag flag = On("f", 5000);
  flag.rules = {
      {.name = "eu", .when = {{.attribute = Condition::Attribute::kTenant, .text = "eu"}}, .then = Rule::Then::kIn},
      {.name = "later", .when = {{.attribute = Condition::Attribute::kTenant, .text = "eu"}}}};
  EXPECT_EQ(Make({.flags = {flag}})->ExplainFor("f", {.targeting_key = "k", .tenant = "eu"}).Text(),
            "f=on;reason=TARGETING_MATCH;layer=file;epoch=7\n"
            "  layers: definition file, enabled by file, 50 % by file\n"
            "  rule eu: matched: in");
}

TEST(ExplanationTest, AnUnknownFlagHasNoChain) {
  EXPECT_EQ(Make({})->ExplainFor("nope", {}).Text(), "nope=off;reason=FLAG_NOT_FOUND;layer=default;epoch=7");
}

}  // namespace
}  // namespace sluice::flags
