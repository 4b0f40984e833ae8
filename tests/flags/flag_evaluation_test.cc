// Variants, lists, rules, schedules, nested shares: each alone, and who comes before whom. Buckets are computed with
// Python: int.from_bytes(hashlib.md5((salt + "-" + key).encode()).digest()[:4], "big") % 10000.
#include <chrono>
#include <string>

#include "flags/targeting.h"
#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

namespace sluice::flags {
namespace {

Decision Ask(const FlagSetSpec& spec, const EvaluationContext& context, std::string_view flag = "f") {
  static std::vector<std::shared_ptr<const FlagSet>> kept;  // decisions point into their set
  kept.push_back(Make(spec));
  return kept.back()->Evaluate(flag, context);
}
Decision Ask(const Flag& flag, const EvaluationContext& context) {
  return Ask(FlagSetSpec{.flags = {flag}}, context, flag.key);
}

Rule When(std::string tenant, Rule::Then then, std::string variant = "", RolloutBps bps = 0) {
  return {.name = "for-" + tenant,
          .when = {{.attribute = Condition::Attribute::kTenant, .text = tenant}},
          .then = then,
          .variant = std::move(variant),
          .bps = bps};
}

// The recipe of Eppo's Universal Flag Configuration: shards of MD5("<salt>-<key>") mod 10000, one salt for the traffic
// and another ("split-...") for the choice. A 60/40 split of a 50 % allocation.
TEST(VariantTest, GoldenSplits) {
  Flag flag = On("exp", 5000);
  flag.variants = {Of("control", "c", 2600), Of("treatment", "t", 7400)};
  struct Vector {
    std::string key, variant;
    int bucket;
  };
  for (const Vector& v : std::vector<Vector>{{"alice", "off", 9542},            // split bucket 3063
                                             {"bob", "control", 4467},          // 397
                                             {"carol", "control", 3020},        // 887
                                             {"dave", "off", 9958},             // 2535
                                             {"user-1", "control", 3872},       // 268
                                             {"user-2", "treatment", 2064}}) {  // 8939
    const Decision d = Ask(flag, {.targeting_key = v.key});
    EXPECT_EQ(d.variant, v.variant) << v.key;
    EXPECT_EQ(d.bucket, v.bucket) << v.key;
    EXPECT_EQ(d.in, v.variant != "off") << v.key;
  }
  flag.rollout_bps = 10000;
  flag.variants[0].weight = 2535;
  flag.variants[1].weight = 7465;
  EXPECT_EQ(Ask(flag, {.targeting_key = "dave"}).variant, "treatment") << "its bucket is the first one of the second";
  flag.variants[0].weight = 2536;
  flag.variants[1].weight = 7464;
  EXPECT_EQ(Ask(flag, {.targeting_key = "dave"}).variant, "control");
}

TEST(VariantTest, SharesFollowWeightsWhateverTheirSumAndTheGate) {
  Flag flag = On("f", 3000);
  flag.variants = {Of("a", 1, 1), Of("none", 2, 0), Of("b", 3, 2)};
  const auto set = Make({.flags = {flag}});
  std::map<std::string, int> count;
  for (int i = 0; i < 30000; ++i)
    ++count[std::string(set->Evaluate("f", {.targeting_key = fmt::format("user-{}", i)}).variant)];
  EXPECT_NEAR(count["a"], 3000, 220);  // 4 standard deviations
  EXPECT_NEAR(count["b"], 6000, 280);
  EXPECT_EQ(count["none"], 0);
}

TEST(VariantTest, ARampChangesNobodysVariant) {
  Flag flag = On("f", 0);
  flag.variants = {Of("a", 1, 30), Of("b", 2, 70)};
  std::map<std::string, std::string> had;
  for (const RolloutBps bps : {100, 1000, 5000, 10000}) {
    flag.rollout_bps = bps;
    const auto set = Make({.flags = {flag}});
    for (int i = 0; i < 2000; ++i) {
      const std::string key = fmt::format("user-{}", i);
      const Decision d = set->Evaluate("f", {.targeting_key = key});
      if (const auto found = had.find(key); found != had.end()) {
        ASSERT_EQ(d.variant, found->second) << key;
      }
      if (d.in) had[key] = std::string(d.variant);
    }
  }
  EXPECT_EQ(had.size(), 2000u);
}

TEST(VariantTest, ValuesSayWhoIsIn) {
  Flag flag = On("f", 10000);
  flag.variants = {Of("no", false, 1)};
  EXPECT_FALSE(Ask(flag, {.targeting_key = "a"}).in);
  EXPECT_EQ(Ask(flag, {.targeting_key = "a"}).variant, "no");
  flag.variants = {Of("zero", 0, 1), Of("off", "quiet", 0)};
  const Decision in = Ask(flag, {});
  EXPECT_TRUE(in.in) << "a choice of one needs no key";
  EXPECT_EQ(*in.variant_value->value, 0);
  flag.rollout_bps = 0;
  const Decision out = Ask(flag, {});
  EXPECT_EQ(*out.variant_value->value, "quiet") << "the value for those who are out";
  EXPECT_EQ(out.variant, "off");
  flag.rollout_bps = 10000;
  flag.variants.push_back(Of("one", 1, 1));
  EXPECT_EQ(Explain(Ask(flag, {})), "f=off;reason=TARGETING_KEY_MISSING;layer=file;epoch=7");
}

TEST(ListTest, DenyBeatsAllowBeatsRulesBeatThePercentage) {
  Flag flag = On("f", 0);
  flag.layer = flag.rollout_layer = Layer::kEnv;
  flag.allow = Keys({"in", "both"});
  flag.deny = Keys({"out", "both"});
  flag.rules = {When("t", Rule::Then::kOut)};
  EXPECT_EQ(Explain(Ask(flag, {.targeting_key = "in", .tenant = "t"})),
            "f=on;reason=TARGETING_MATCH;layer=file;epoch=7");
  EXPECT_FALSE(Ask(flag, {.targeting_key = "both"}).in);
  EXPECT_EQ(Ask(flag, {.targeting_key = "other"}).reason, Reason::kStatic);
  flag.rollout_bps = 10000;
  EXPECT_EQ(Explain(Ask(flag, {.targeting_key = "out"})), "f=off;reason=TARGETING_MATCH;layer=file;epoch=7");
  EXPECT_FALSE(Ask(flag, {.targeting_key = "other", .tenant = "t"}).in);
  EXPECT_TRUE(Ask(flag, {.targeting_key = "other", .tenant = "s"}).in);
  EXPECT_EQ(Ask(flag, {.targeting_key = ""}).reason, Reason::kStatic) << "an empty key is in no list";
}

TEST(RuleOrderTest, TheFirstMatchDecides) {
  Flag flag = On("f", 0);
  flag.variants = {Of("a", 1, 1), Of("b", 2, 0)};
  flag.rules = {When("x", Rule::Then::kVariant, "b"), When("x", Rule::Then::kOut), When("y", Rule::Then::kIn),
                When("z", Rule::Then::kPercentage, "", 4472)};
  EXPECT_EQ(Ask(flag, {.targeting_key = "k", .tenant = "x"}).variant, "b");
  EXPECT_EQ(Ask(flag, {.targeting_key = "k", .tenant = "y"}).variant, "a");
  EXPECT_EQ(Ask(flag, {.targeting_key = "k", .tenant = "w"}).variant, "off");
}

TEST(RuleOrderTest, APercentageOfARuleUsesTheFlagsBuckets) {
  Flag flag = On("exp", 0);
  flag.rules = {When("z", Rule::Then::kPercentage, "", 4468)};
  const auto set = Make({.flags = {flag}});
  EXPECT_EQ(Explain(set->Evaluate("exp", {.targeting_key = "bob", .tenant = "z"})),
            "exp=on;reason=SPLIT;bucket=4467;threshold=4468;layer=file;epoch=7");
  EXPECT_FALSE(set->Evaluate("exp", {.targeting_key = "alice", .tenant = "z"}).in);
  EXPECT_FALSE(set->Evaluate("exp", {.targeting_key = "bob"}).in);
}

TEST(RuleOrderTest, AllConditionsMustHold) {
  Flag flag = On("f", 0);
  flag.rules = {When("x", Rule::Then::kIn)};
  flag.rules[0].when.push_back({.attribute = Condition::Attribute::kModel, .text = "m"});
  EXPECT_TRUE(Ask(flag, {.targeting_key = "k", .tenant = "x", .model = "m"}).in);
  EXPECT_FALSE(Ask(flag, {.targeting_key = "k", .tenant = "x"}).in);
  EXPECT_FALSE(Ask(flag, {.targeting_key = "k", .model = "m"}).in);
}

// A rollback must reach those whom a list or a rule lets in.
TEST(RuleOrderTest, ARollbacksPercentageComesFirst) {
  Flag flag = On("f", 0);
  flag.allow = Keys({"vip"});
  flag.rules = {When("t", Rule::Then::kIn)};
  for (const auto& [layer, in] : std::map<Layer, bool>{
           {Layer::kOverride, true}, {Layer::kEnv, true}, {Layer::kRollback, false}, {Layer::kEmergency, false}}) {
    flag.rollout_layer = layer;
    EXPECT_EQ(Ask(flag, {.targeting_key = "vip"}).in, in) << LayerName(layer);
    EXPECT_EQ(Ask(flag, {.targeting_key = "k", .tenant = "t"}).in, in) << LayerName(layer);
  }
  flag.rollout_layer = Layer::kRollback;
  flag.rollout_bps = 10000;
  flag.deny = Keys({"out"});
  EXPECT_TRUE(Ask(flag, {.targeting_key = "vip"}).in);
  EXPECT_FALSE(Ask(flag, {.targeting_key = "out"}).in) << "but it lets nobody in";
}

class Everybody : public Targeting {
 public:
  Result Evaluate(std::string_view, const EvaluationContext&) const override {
    return {.variant = &variant_, .reason = Reason::kTargetingMatch};
  }

 private:
  const Variant variant_ = Of("yes", true);
};

TEST(ProgramTest, APercentageFromTheRolloutStageUpComesFirst) {
  Flag flag = On("f", 0);
  flag.targeting = std::make_shared<Everybody>();
  for (const auto& [layer, in] : std::map<Layer, bool>{
           {Layer::kDefault, true}, {Layer::kRemote, true}, {Layer::kRolloutStage, false}, {Layer::kEnv, false}}) {
    flag.rollout_layer = layer;
    EXPECT_EQ(Ask(flag, {.targeting_key = "k"}).in, in) << LayerName(layer);
  }
}

TEST(ScheduleTest, StartIsInsideEndIsNot) {
  const WallTime start = std::chrono::sys_days(std::chrono::year(2026) / 1 / 31);
  const WallTime end = start + std::chrono::hours(24);
  Flag flag = On("f", 10000);
  flag.schedule = {start, end};
  EXPECT_EQ(Explain(Ask(flag, {.now = start - Duration(1)})), "f=off;reason=SCHEDULE;layer=file;epoch=7");
  EXPECT_TRUE(Ask(flag, {.now = start}).in);
  EXPECT_TRUE(Ask(flag, {.now = end - Duration(1)}).in);
  EXPECT_FALSE(Ask(flag, {.now = end}).in);
  flag.schedule = {.end = end};
  EXPECT_TRUE(Ask(flag, {}).in);
  flag.schedule = {.start = start};
  EXPECT_TRUE(Ask(flag, {.now = end}).in);
  const Decision child = Ask({.flags = {flag, On("child", 10000, "f")}}, {}, "child");
  EXPECT_EQ(child.reason, Reason::kSchedule);
}

TEST(NestedTest, TheSmallerShareHoldsWhicheverItIs) {
  for (const auto& [parent, child] : std::vector<std::pair<RolloutBps, RolloutBps>>{{1000, 5000}, {5000, 1000}}) {
    FlagSetSpec spec = {.flags = {On("top", parent), On("f", child, "top"), On("leaf", 10000, "f")}};
    spec.flags[0].salt = "2026";
    spec.flags[1].parent_share = spec.flags[2].parent_share = ParentShare::kNested;
    const auto set = Make(spec);
    EXPECT_EQ(set->flags()[2].salt, "2026");
    EXPECT_DOUBLE_EQ(set->EffectiveShare("f"), 0.1);
    EXPECT_DOUBLE_EQ(set->EffectiveShare("leaf"), 0.1);
    for (int i = 0; i < 5000; ++i) {
      const std::string key = fmt::format("user-{}", i);
      ASSERT_EQ(set->Evaluate("leaf", {.targeting_key = key}).in, BucketV2("2026", key) < 1000) << key;
    }
  }
}

TEST(NestedTest, ExpectedShareOfTheOwnSplit) {
  FlagSetSpec spec = {.flags = {On("top", 4000), On("f", 1000, "top"), On("g", 1000, "top")}};
  spec.flags[1].parent_share = ParentShare::kNested;
  EXPECT_DOUBLE_EQ(*Make(spec)->ExpectedSplitShare("f"), 0.25);
  EXPECT_DOUBLE_EQ(*Make(spec)->ExpectedSplitShare("g"), 0.1);
  spec.flags[0].allow = Keys({"a"});
  EXPECT_FALSE(Make(spec)->ExpectedSplitShare("f").has_value());
  EXPECT_DOUBLE_EQ(*Make(spec)->ExpectedSplitShare("g"), 0.1);
  spec.flags[2].rollout_bps = 10000;
  EXPECT_FALSE(Make(spec)->ExpectedSplitShare("g").has_value());
}

TEST(EmergencyTest, OneFlagCanBeKilledAlone) {
  FlagSetSpec spec = {.flags = {On("f", 10000), On("g", 10000)}};
  spec.flags[0].enabled = false;
  spec.flags[0].layer = Layer::kEmergency;
  EXPECT_EQ(Ask(spec, {}).reason, Reason::kEmergency);
  EXPECT_TRUE(Ask(spec, {}, "g").in);
}

}  // namespace
}  // namespace sluice::flags
