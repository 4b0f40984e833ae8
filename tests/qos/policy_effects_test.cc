#include "qos/policy_effects.h"

#include <cstdio>
#include <random>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "qos/policy_bucket.h"
#include "tests/qos/policy_test_support.h"

namespace sluice::qos {
namespace {

constexpr uint8_t kBatch = Bit(QosClass::kBatch), kStandard = Bit(QosClass::kStandard);

Policy Acting(std::string id, std::vector<Action> ladder, int priority = 0) {
  Policy policy = Enforced(std::move(id), {AtMost("ttft_p95_ms", 1)}, std::move(ladder));
  policy.priority = priority;
  return policy;
}

// What they say of `request`, with all that it points into.
struct Said {
  Said(ActingPolicies a, const Request& request) : acting(std::move(a)), effects(acting.Decide(request)) {}
  const PolicyEffects* operator->() const { return &effects; }
  ActingPolicies acting;
  PolicyEffects effects;
};

// All at the top of their ladders.
ActingPolicies AtTheTop(std::vector<Policy> policies) {
  const auto set = SetOf(std::move(policies), 9);
  std::vector<int> steps;
  for (const Policy& policy : set->policies()) steps.push_back(static_cast<int>(policy.ladder.size()));
  return {set, steps};
}

TEST(PolicyEffects, NobodyOnAStepIsNothing) {
  const auto set = SetOf({Acting("a", {Limit(8)}), Acting("b", {Alert("ops")})}, 9);
  const PolicyEffects effects = ActingPolicies(set, {0, 1}).Decide({.max_tokens = 100});
  EXPECT_FALSE(ActingPolicies::Any(effects));
  EXPECT_EQ(effects.epoch, 9u);
}

TEST(PolicyEffects, OnlyTheStepsTakenAct) {
  const auto set = SetOf({Acting("a", {Limit(64), Limit(8), Shed(kBatch)})});
  const Request batch{.qos_class = QosClass::kBatch, .max_tokens = 100};
  EXPECT_EQ(ActingPolicies(set, {1}).Decide(batch).enforced.max_tokens, 64);
  EXPECT_EQ(ActingPolicies(set, {2}).Decide(batch).enforced.max_tokens, 8);
  EXPECT_EQ(ActingPolicies(set, {2}).Decide(batch).enforced.shed_by, "");
  EXPECT_EQ(ActingPolicies(set, {3}).Decide(batch).enforced.shed_by, "a");
}

TEST(PolicyEffects, TheStrictestLimitWinsAndIsNamed) {
  const ActingPolicies acting =
      AtTheTop({Acting("a", {Limit(64)}, 9), Acting("b", {Limit(8)}, 5), Acting("c", {Limit(8)})});
  const PolicyEffects effects = acting.Decide({.max_tokens = 100});
  EXPECT_EQ(effects.enforced.max_tokens, 8);
  EXPECT_EQ(effects.enforced.max_tokens_by, "b") << "of two equal ones the higher priority";
  EXPECT_EQ(acting.Decide({.max_tokens = 0}).enforced.max_tokens, 8) << "says nothing: gets the default, cut";
  const PolicyEffects small = acting.Decide({.max_tokens = 8});
  EXPECT_EQ(small.enforced.max_tokens_by, "") << "asks for no more: nothing is cut";
  EXPECT_EQ(acting.Decide({.max_tokens = 20}).enforced.max_tokens_by, "b");
}

TEST(PolicyEffects, ThePipelineOfTheHighestPriorityHolds) {
  const Said said(AtTheTop({Acting("a", {SwitchPipeline("ttft"), PreferUpstream("x")}),
                            Acting("b", {SwitchPipeline("baseline"), PreferUpstream("y")}, 5)}),
                  {});
  EXPECT_EQ(said->enforced.pipeline, "baseline");
  EXPECT_EQ(said->enforced.pipeline_by, "b");
  EXPECT_EQ(said->enforced.upstream, "y");
}

TEST(PolicyEffects, SeveralActAtOnce) {
  const Said said(
      AtTheTop({Acting("a", {Shed(kBatch)}), Acting("b", {Limit(5)}), Acting("c", {SwitchPipeline("baseline")})}),
      {.qos_class = QosClass::kBatch, .max_tokens = 100});
  EXPECT_EQ(said->enforced.shed_by, "a");
  EXPECT_EQ(said->enforced.max_tokens_by, "b");
  EXPECT_EQ(said->enforced.pipeline_by, "c");
}

TEST(PolicyEffects, ShedsItsClassesOnly) {
  const ActingPolicies acting = AtTheTop({Acting("a", {Shed(kBatch | kStandard)})});
  EXPECT_EQ(acting.Decide({.qos_class = QosClass::kBatch}).enforced.shed_by, "a");
  EXPECT_EQ(acting.Decide({.qos_class = QosClass::kStandard}).enforced.shed_by, "a");
  EXPECT_EQ(acting.Decide({.qos_class = QosClass::kInteractive}).enforced.shed_by, "");
  EXPECT_EQ(acting.Decide({.qos_class = QosClass::kSystem}).enforced.shed_by, "");
}

TEST(PolicyEffects, DryRunSaysWhatItWouldAdd) {
  Policy dry = Acting("dry", {Limit(4), Shed(kBatch), SwitchPipeline("baseline")});
  dry.mode = PolicyMode::kDryRun;
  const auto with = [&](std::vector<Action> ladder, int priority = 0) {
    return Said(AtTheTop({dry, Acting("real", std::move(ladder), priority)}),
                {.qos_class = QosClass::kBatch, .max_tokens = 100});
  };
  const Said alone = with({Alert("ops")});
  EXPECT_FALSE(ActingPolicies::Any({.enforced = alone->enforced})) << "nothing is done";
  EXPECT_EQ(alone->dry_run.max_tokens, 4);
  EXPECT_EQ(alone->dry_run.shed_by, "dry");
  EXPECT_EQ(alone->dry_run.pipeline_by, "dry");
  const Said same = with({Limit(8), Shed(kBatch), SwitchPipeline("baseline")});
  EXPECT_EQ(same->enforced.max_tokens, 8);
  EXPECT_EQ(same->dry_run.max_tokens, 4) << "it would cut more";
  EXPECT_EQ(same->dry_run.shed_by, "") << "it is shed anyway";
  EXPECT_EQ(same->dry_run.pipeline_by, "") << "it is switched anyway";
  EXPECT_EQ(with({Limit(2)})->dry_run.max_tokens_by, "") << "it is cut more anyway";
  EXPECT_EQ(with({SwitchPipeline("ttft")}, 5)->dry_run.pipeline_by, "") << "a higher priority chose already";
  const Said lower = with({SwitchPipeline("ttft")}, -5);
  EXPECT_EQ(lower->dry_run.pipeline, "baseline");
  EXPECT_EQ(lower->enforced.pipeline, "ttft");
}

TEST(PolicyEffects, OffDoesNothing) {
  Policy off = Acting("off", {Limit(4)});
  off.mode = PolicyMode::kOff;
  EXPECT_FALSE(ActingPolicies::Any(AtTheTop({off}).Decide({.max_tokens = 100})));
}

TEST(PolicyEffects, APercentageOfKeysIsEnforcedTheRestIsDryRun) {
  Policy some = Acting("some", {Limit(4)});
  int last = 0;
  for (const double percent : {0.0, 0.5, 10.0, 50.0, 99.99, 100.0}) {
    some.enforced_percent = percent;
    const ActingPolicies acting = AtTheTop({some});
    int enforced = 0;
    for (int i = 0; i < 20'000; ++i) {
      const uint64_t key = StableHash(fmt::format("user-{}", i));
      const PolicyEffects effects = acting.Decide({.key_hash = key, .max_tokens = 9});
      ASSERT_NE(effects.enforced.max_tokens_by.empty(), effects.dry_run.max_tokens_by.empty());
      enforced += effects.enforced.max_tokens_by.empty() ? 0 : 1;
    }
    EXPECT_NEAR(enforced, 200 * percent, 4 * 71) << percent;
    EXPECT_GE(enforced, last);
    last = enforced;
    const bool without_key = !acting.Decide({.max_tokens = 9}).enforced.max_tokens_by.empty();
    EXPECT_EQ(without_key, percent == 100) << "no key: in for all only";
  }
  EXPECT_EQ(last, 20'000);
}

TEST(PolicyEffects, CapsAreTheStrictestEnforcedOnes) {
  Policy dry = Acting("dry", {Queue(kStandard, 1)});
  dry.mode = PolicyMode::kDryRun;
  const auto set =
      SetOf({Acting("a", {Queue(kBatch, 8), Queue(kBatch | kStandard, 4)}), Acting("b", {Queue(kBatch, 6)}), dry});
  const auto caps = [&](std::vector<int> steps) { return ActingPolicies(set, steps).class_caps(); };
  EXPECT_EQ(caps({0, 0, 1}), (ClassCaps{kNoClassCap, kNoClassCap, kNoClassCap, kNoClassCap}));
  EXPECT_EQ(caps({1, 1, 1}), (ClassCaps{kNoClassCap, kNoClassCap, kNoClassCap, 6}));
  EXPECT_EQ(caps({2, 1, 1}), (ClassCaps{kNoClassCap, kNoClassCap, 4, 4}));
}

TEST(PolicyEffects, ActsOnMayDifferFromWhatIsMeasured) {
  Policy policy = Acting("a", {Limit(4)});
  policy.scope.tenants = {"premium"};
  policy.acts_on = Scope{.models = {"big"}, .classes = kBatch};
  const ActingPolicies acting = AtTheTop({policy});
  EXPECT_TRUE(ActingPolicies::Any(
      acting.Decide({.tenant = "other", .model = "big", .qos_class = QosClass::kBatch, .max_tokens = 9})));
  EXPECT_FALSE(ActingPolicies::Any(
      acting.Decide({.tenant = "premium", .model = "small", .qos_class = QosClass::kBatch, .max_tokens = 9})));
  EXPECT_FALSE(ActingPolicies::Any(acting.Decide({.tenant = "premium", .model = "big", .max_tokens = 9})));
}

// The index against asking each scope.
TEST(ScopeIndex, AgreesWithEachScopeAlone) {
  constexpr uint32_t kSeed = 11;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  const auto name = [&](const char* what) { return fmt::format("{}{}", what, random() % 20); };
  for (int round = 0; round < 50; ++round) {
    std::vector<Scope> scopes(1 + random() % PolicySet::kMaxPolicies);
    std::vector<const Scope*> pointers;
    for (Scope& scope : scopes) {
      if (random() % 2 == 0) {
        for (size_t i = random() % 5; i > 0; --i) scope.tenants.insert(name("t"));
      }
      if (random() % 2 == 0) scope.models.insert(name("m"));
      scope.classes = static_cast<uint8_t>(random() % 16);
      pointers.push_back(random() % 10 == 0 ? nullptr : &scope);
    }
    const ScopeIndex index(pointers);
    for (int i = 0; i < 200; ++i) {
      const std::string tenant = name("t"), model = name("m");
      const auto c = static_cast<QosClass>(random() % kQosClassCount);
      PolicyMask expected;
      for (size_t s = 0; s < pointers.size(); ++s) {
        const Scope* scope = pointers[s];
        if (scope != nullptr && (scope->tenants.empty() || scope->tenants.contains(tenant)) &&
            (scope->models.empty() || scope->models.contains(model)) &&
            (scope->classes == 0 || (scope->classes & Bit(c)) != 0)) {
          expected.Set(s);
        }
      }
      ASSERT_EQ(index.Match(tenant, model, c), expected) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace sluice::qos
