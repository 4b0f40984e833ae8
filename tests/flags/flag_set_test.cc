#include "flags/flag_set.h"

#include <string>

#include "flags/bucket.h"
#include "flags/targeting.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"

namespace sluice::flags {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

Flag On(std::string key, RolloutBps bps, std::string parent = "") {
  return {.key = std::move(key), .enabled = true, .rollout_bps = bps, .parent = std::move(parent)};
}

// The shipped hierarchy.
FlagSetSpec Seeds(RolloutBps phase5, RolloutBps ttft, RolloutBps qos) {
  return {.flags = {On("phase5", phase5), On("ttft_pipeline", ttft, "phase5"), On("qos_policy", qos, "phase5")}};
}

std::shared_ptr<const FlagSet> Make(FlagSetSpec spec, uint64_t epoch = 7) {
  auto set = FlagSet::Create(std::move(spec), epoch);
  EXPECT_THAT(set, test::IsOk());
  return *set;
}

Decision Ask(const FlagSet& set, std::string_view flag, std::string_view key = "alice") {
  return set.Evaluate(flag, {.targeting_key = key});
}

// A key whose bucket for `salt` fulfils `want`.
template <typename Want>
std::string KeyWhere(std::string_view salt, Want want) {
  for (int i = 0; i < 1000000; ++i) {
    std::string key = fmt::format("k{}", i);
    if (want(BucketV2(salt, key))) return key;
  }
  ADD_FAILURE() << "no such key";
  return {};
}

TEST(FlagSetTest, SplitComparesBucketWithThreshold) {
  const auto set = Make({.flags = {On("f", 5000)}});
  const std::string last_in = KeyWhere("f", [](uint32_t b) { return b == 4999; });
  const std::string first_out = KeyWhere("f", [](uint32_t b) { return b == 5000; });
  EXPECT_EQ(Explain(Ask(*set, "f", last_in)), "f=on;reason=SPLIT;bucket=4999;threshold=5000;layer=file;epoch=7");
  EXPECT_EQ(Explain(Ask(*set, "f", first_out)), "f=off;reason=SPLIT;bucket=5000;threshold=5000;layer=file;epoch=7");
}

TEST(FlagSetTest, OneHundredthOfAPercentTakesOneBucket) {
  const auto set = Make({.flags = {On("f", 1)}});
  EXPECT_TRUE(Ask(*set, "f", KeyWhere("f", [](uint32_t b) { return b == 0; })).in);
  EXPECT_FALSE(Ask(*set, "f", KeyWhere("f", [](uint32_t b) { return b == 1; })).in);
  int in = 0;
  for (int i = 0; i < 1000000; ++i) in += Ask(*set, "f", fmt::format("user-{}", i)).in;
  EXPECT_NEAR(in, 100, 40);  // 4 standard deviations
}

TEST(FlagSetTest, NobodyAndEverybodyAreStatic) {
  const auto set = Make({.flags = {On("none", 0), On("all", 10000)}});
  const std::string bucket0 = KeyWhere("none", [](uint32_t b) { return b == 0; });
  const std::string bucket9999 = KeyWhere("all", [](uint32_t b) { return b == 9999; });
  EXPECT_EQ(Explain(Ask(*set, "none", bucket0)), "none=off;reason=STATIC;layer=file;epoch=7");
  EXPECT_EQ(Explain(Ask(*set, "all", bucket9999)), "all=on;reason=STATIC;layer=file;epoch=7");
}

TEST(FlagSetTest, MissingKeyIsOutUnlessEverybodyIsIn) {
  const auto set = Make({.flags = {On("most", 9999), On("all", 10000), On("child", 10000, "most")}});
  EXPECT_EQ(Explain(Ask(*set, "most", "")), "most=off;reason=TARGETING_KEY_MISSING;layer=file;epoch=7");
  EXPECT_TRUE(Ask(*set, "all", "").in);
  EXPECT_EQ(Ask(*set, "child", "").reason, Reason::kTargetingKeyMissing);
}

// Once in, always in while the percentage grows; each step adds nobody twice.
TEST(FlagSetTest, RampIsMonotone) {
  std::vector<std::string> keys;
  for (int i = 0; i < 2000; ++i) keys.push_back(fmt::format("user-{}", i));
  std::vector<bool> was_in(keys.size(), false);
  for (RolloutBps bps = 0; bps <= 10000; bps += 125) {
    const auto set = Make({.flags = {On("f", bps)}});
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool in = Ask(*set, "f", keys[i]).in;
      ASSERT_TRUE(in || !was_in[i]) << keys[i] << " left at " << bps;
      was_in[i] = in;
    }
  }
  EXPECT_THAT(was_in, testing::Each(true));
}

TEST(FlagSetTest, DisabledWinsOverPercentage) {
  Flag flag = On("f", 10000);
  flag.enabled = false;
  flag.layer = Layer::kEnv;
  EXPECT_EQ(Explain(Ask(*Make({.flags = {flag}}), "f")), "f=off;reason=DISABLED;layer=env;epoch=7");
}

TEST(FlagSetTest, UnknownFlagIsOut) {
  EXPECT_EQ(Explain(Ask(*Make(Seeds(10000, 10000, 10000)), "nope")),
            "nope=off;reason=FLAG_NOT_FOUND;layer=default;epoch=7");
}

TEST(FlagSetTest, HashVersion1CountsHundredBuckets) {
  Flag flag = On("f", 3300);
  flag.hash_version = 1;
  flag.salt = "ttft-pipeline-2025-01-08";
  EXPECT_EQ(Explain(Ask(*Make({.flags = {flag}}), "f")),
            "f=off;reason=SPLIT;bucket=33;threshold=33;layer=file;epoch=7");
  flag.rollout_bps = 3400;
  EXPECT_TRUE(Ask(*Make({.flags = {flag}}), "f").in);
}

TEST(FlagSetTest, RolloutLayerExplainsASplit) {
  Flag flag = On("f", 10000);
  flag.rollout_layer = Layer::kRolloutStage;
  EXPECT_EQ(Ask(*Make({.flags = {flag}}), "f").layer, Layer::kRolloutStage);
}

TEST(FlagSetTest, ChildNeedsItsParentAndItself) {
  const auto set = Make(Seeds(5000, 5000, 0));
  int parent_in = 0, both = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string key = fmt::format("user-{}", i);
    const Decision parent = Ask(*set, "phase5", key), child = Ask(*set, "ttft_pipeline", key);
    ASSERT_EQ(child.in, parent.in && BucketV2("ttft_pipeline", key) < 5000);
    ASSERT_EQ(child.reason, parent.in ? Reason::kSplit : Reason::kParentOut);
    if (!parent.in) {  // shows what kept it out
      ASSERT_EQ(child.bucket, parent.bucket);
      ASSERT_EQ(child.flag, "ttft_pipeline");
    }
    parent_in += parent.in;
    both += child.in;
  }
  EXPECT_NEAR(parent_in, 10000, 300);
  EXPECT_NEAR(both, 5000, 260);  // independent salts: the product
}

TEST(FlagSetTest, DisabledParentMakesChildrenInert) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.flags[0].enabled = false;
  spec.flags[0].layer = Layer::kEnv;
  const auto set = Make(spec);
  EXPECT_EQ(Explain(Ask(*set, "ttft_pipeline")), "ttft_pipeline=off;reason=DISABLED;layer=env;epoch=7");
}

TEST(FlagSetTest, ParentAtZeroKeepsChildrenOut) {
  EXPECT_EQ(Ask(*Make(Seeds(0, 10000, 10000)), "qos_policy").reason, Reason::kParentOut);
}

// Gives each key the variant of that name.
class ByKey : public Targeting {
 public:
  explicit ByKey(std::vector<Variant> variants) : variants_(std::move(variants)) {}
  Result Evaluate(std::string_view flag_key, const EvaluationContext& context) const override {
    EXPECT_EQ(flag_key, "f");
    for (const Variant& variant : variants_) {
      if (variant.name == context.targeting_key) return {.variant = &variant, .reason = Reason::kTargetingMatch};
    }
    return {.reason = Reason::kDefault};
  }

 private:
  std::vector<Variant> variants_;
};

TEST(FlagSetTest, TargetingPicksTheVariant) {
  const auto variant = [](std::string name, const nlohmann::json& value) {
    return Variant{.name = std::move(name), .value = std::make_shared<const nlohmann::json>(value)};
  };
  FlagSetSpec spec = {.flags = {On("top", 10000), On("f", 0, "top")}};
  spec.flags[1].targeting = std::make_shared<ByKey>(
      std::vector{variant("yes", true), variant("no", false), variant("off", "text"), variant("other", 0)});
  const auto set = Make(spec);
  EXPECT_EQ(Explain(Ask(*set, "f", "yes")), "f=yes;reason=TARGETING_MATCH;layer=file;epoch=7");
  EXPECT_EQ(*Ask(*set, "f", "yes").variant_value->value, true);
  EXPECT_TRUE(Ask(*set, "f", "yes").in);
  EXPECT_FALSE(Ask(*set, "f", "no").in);
  EXPECT_FALSE(Ask(*set, "f", "off").in);
  EXPECT_TRUE(Ask(*set, "f", "other").in);
  EXPECT_EQ(Explain(Ask(*set, "f", "nobody")), "f=off;reason=DEFAULT;layer=file;epoch=7");
  EXPECT_EQ(Ask(*set, "f", "nobody").variant_value, nullptr);

  spec.flags[0].rollout_bps = 0;
  EXPECT_EQ(Explain(Ask(*Make(spec), "f", "yes")), "f=off;reason=PARENT_OUT;layer=file;epoch=7");
  spec.flags[0].rollout_bps = 10000;
  spec.flags[1].enabled = false;
  EXPECT_EQ(Ask(*Make(spec), "f", "yes").reason, Reason::kDisabled);
  spec.kill_switch = true;
  EXPECT_EQ(Ask(*Make(spec), "f", "yes").reason, Reason::kEmergency);
}

TEST(FlagSetTest, DryRunIsInForTheLogOnlyAndInherited) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.flags[2].dry_run = true;
  spec.flags[2].features = {{"shed", true}};
  const auto set = Make(spec);
  const Decision qos = Ask(*set, "qos_policy");
  EXPECT_TRUE(qos.in);
  EXPECT_TRUE(qos.dry_run);
  EXPECT_FALSE(set->FeatureOn(qos, "shed"));
  EXPECT_FALSE(Ask(*set, "ttft_pipeline").dry_run);

  spec.flags[0].dry_run = true;
  EXPECT_TRUE(Ask(*Make(spec), "ttft_pipeline").dry_run);

  spec = Seeds(10000, 0, 0);
  spec.flags[1].dry_run = true;
  EXPECT_FALSE(Ask(*Make(spec), "ttft_pipeline").dry_run) << "out is out, not a dry run";
}

TEST(FlagSetTest, FeaturesFollowTheirFlag) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.flags[1].features = {{"warmup_queue", true}, {"kv_prep", false}};
  const auto set = Make(spec);
  const Decision in = Ask(*set, "ttft_pipeline");
  EXPECT_TRUE(set->FeatureOn(in, "warmup_queue"));
  EXPECT_FALSE(set->FeatureOn(in, "kv_prep"));
  EXPECT_FALSE(set->FeatureOn(in, "speculation")) << "not mentioned";
  EXPECT_FALSE(set->FeatureOn(Ask(*set, "phase5"), "warmup_queue")) << "another flag's";

  spec.flags[1].rollout_bps = 0;
  const auto out = Make(spec);
  EXPECT_FALSE(out->FeatureOn(Ask(*out, "ttft_pipeline"), "warmup_queue"));
}

TEST(FlagSetTest, KillSwitchTakesEverythingOut) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.kill_switch = true;
  const auto set = Make(spec);
  for (const char* flag : {"phase5", "ttft_pipeline", "qos_policy"}) {
    EXPECT_EQ(Explain(Ask(*set, flag)), fmt::format("{}=off;reason=EMERGENCY;layer=emergency;epoch=7", flag));
    EXPECT_EQ(set->EffectiveShare(flag), 0);
  }
}

TEST(FlagSetTest, RollbackToBaselineTakesTtftAndItsChildrenOut) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.flags.push_back(On("grandchild", 10000, "child"));  // before its parent: order does not matter
  spec.flags.push_back(On("child", 10000, "ttft_pipeline"));
  spec.rollback_to_baseline = true;
  const auto set = Make(spec);
  for (const char* flag : {"ttft_pipeline", "child", "grandchild"}) {
    const Decision d = Ask(*set, flag);
    EXPECT_FALSE(d.in);
    EXPECT_EQ(d.reason, Reason::kEmergency);
    EXPECT_EQ(d.layer, Layer::kEmergency);
  }
  EXPECT_TRUE(Ask(*set, "phase5").in);
  EXPECT_TRUE(Ask(*set, "qos_policy").in);
}

TEST(FlagSetCreateTest, SaltDefaultsToTheKey) { EXPECT_EQ(Make(Seeds(1, 1, 1))->flags()[1].salt, "ttft_pipeline"); }

TEST(FlagSetCreateTest, NamesEveryFaultAtOnce) {
  Flag v3 = On("v3", 100), v1 = On("v1", 150);
  v3.hash_version = 3;
  v1.hash_version = 1;
  const auto set = FlagSet::Create(
      {.flags = {On("f", 10001), On("f", 0), On("", 0), On("orphan", 0, "nope"), v3, v1, On("me", 0, "me"),
                 On("a", 0, "b"), On("b", 0, "c"), On("c", 0, "a"), On("leads_in", 0, "a")}},
      1);
  ASSERT_THAT(set, test::StatusIs(absl::StatusCode::kInvalidArgument));
  std::vector<std::string> faults;
  for (const FieldViolation& v : GetErrorDetails(set.status()).violations)
    faults.push_back(v.field + " " + v.description);
  EXPECT_THAT(faults,
              UnorderedElementsAre("f.rollout_percentage got 100.01 %; allowed 0 to 100 %",
                                   "f.key appears more than once; allowed once",
                                   "flags[2].key is empty; allowed a key for every flag",
                                   "orphan.parent no flag is called \"nope\"; allowed a flag of this set",
                                   "v3.hash_version got 3; allowed 1 or 2",
                                   "v1.rollout_percentage got 1.5 %; allowed whole percents, as hash_version is 1",
                                   "me.parent parents form a cycle: me -> me; allowed parents without a cycle",
                                   "a.parent parents form a cycle: a -> b -> c -> a; allowed parents without a cycle"));
}

TEST(FlagSetCreateTest, AnEmptySetIsValid) { EXPECT_FALSE(Ask(*Make({}), "phase5").in); }

TEST(EffectiveShareTest, IndependentSaltsMultiplyEqualSaltsNest) {
  FlagSetSpec spec = Seeds(1000, 1000, 5000);
  EXPECT_DOUBLE_EQ(Make(spec)->EffectiveShare("ttft_pipeline"), 0.01);
  EXPECT_DOUBLE_EQ(Make(spec)->EffectiveShare("nope"), 0);

  spec.flags[1].salt = "phase5";  // the same buckets as its parent
  spec.flags[2].salt = "phase5";
  const auto set = Make(spec);
  EXPECT_DOUBLE_EQ(set->EffectiveShare("ttft_pipeline"), 0.1);
  EXPECT_DOUBLE_EQ(set->EffectiveShare("qos_policy"), 0.1);
  int in = 0;
  for (int i = 0; i < 10000; ++i) in += Ask(*set, "qos_policy", fmt::format("user-{}", i)).in;
  EXPECT_NEAR(in, 1000, 120);
}

TEST(EffectiveShareTest, ChainOfMixedSalts) {
  FlagSetSpec spec = {.flags = {On("a", 5000), On("b", 5000, "a"), On("c", 2000, "b")}};
  spec.flags[2].salt = "a";  // nests with the root, independent of the middle
  EXPECT_DOUBLE_EQ(Make(spec)->EffectiveShare("c"), 0.1);
  spec.flags[2].hash_version = 1;  // other input bytes, so independent of both
  EXPECT_DOUBLE_EQ(Make(spec)->EffectiveShare("c"), 0.05);
}

TEST(DescribeTest, OneLineAFlagWithEffectiveShare) {
  FlagSetSpec spec = Seeds(1000, 1000, 5000);
  spec.flags[1].rollout_layer = Layer::kEnv;
  spec.flags[1].features = {{"kv_prep", false}, {"warmup_queue", true}};
  spec.flags[2].dry_run = true;
  const auto state = Make(spec)->Describe();
  EXPECT_THAT(
      state.lines,
      ElementsAre("phase5: enabled (file), 10 % (file), effective 10 % of keys",
                  "qos_policy: enabled (file), 50 % (file), parent phase5, effective 5 % of keys, dry_run",
                  "ttft_pipeline: enabled (file), 10 % (env), parent phase5, effective 1 % of keys, kv_prep off, "
                  "warmup_queue on"));
  EXPECT_THAT(state.warnings, IsEmpty());
}

TEST(DescribeTest, WarnsAboutEnabledChildrenThatAreInert) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.flags[0].enabled = false;
  spec.flags[2].enabled = false;  // asks for nothing, so nothing is lost
  EXPECT_THAT(Make(spec)->Describe().warnings,
              ElementsAre("ttft_pipeline is enabled but inert: its parent phase5 is disabled"));
  spec = Seeds(0, 10000, 10000);
  EXPECT_THAT(Make(spec)->Describe().warnings,
              ElementsAre("qos_policy is enabled but inert: its parent phase5 is at 0 %",
                          "ttft_pipeline is enabled but inert: its parent phase5 is at 0 %"));
}

TEST(DescribeTest, EmergencyComesFirst) {
  FlagSetSpec spec = Seeds(10000, 10000, 10000);
  spec.kill_switch = true;
  const auto lines = Make(spec)->Describe().lines;
  EXPECT_EQ(lines.at(0), "emergency: kill_switch is on, every flag is out");
  EXPECT_THAT(lines.at(1), HasSubstr("effective 0 % of keys"));
}

}  // namespace
}  // namespace sluice::flags
