#include "qos/policy_engine.h"

#include <atomic>
#include <thread>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/qos/policy_test_support.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint8_t kBatch = Bit(QosClass::kBatch);

Policy Ttft(std::vector<Action> ladder) {
  return Enforced("ttft", {AtMost("ttft_p95_ms", 100, 10)}, std::move(ladder));
}

// "limit_max_tokens+1" for an order that begins at step 1, "shed-0" for one that ends, in brackets in dry run.
std::vector<std::string> Words(const std::vector<ActionOrder>& orders) {
  std::vector<std::string> out;
  for (const ActionOrder& order : orders) {
    const std::string word = fmt::format("{}{}{}", ActionName(order.action.kind), order.begins ? '+' : '-', order.step);
    out.push_back(order.dry_run ? "(" + word + ")" : word);
  }
  return out;
}

class PolicyEngineTest : public testing::Test {
 protected:
  PolicyEngine& Start(std::vector<Policy> policies) {
    engine_.emplace(SetOf(std::move(policies)), clock_, metrics_);
    return *engine_;
  }
  void Requests(int count, Duration ttft, std::string_view tenant = "a") {
    for (int i = 0; i < count; ++i)
      engine_->Record({.tenant = tenant, .model = "m", .ended = clock_.Now(), .ttft = ttft});
  }
  std::vector<std::string> After(Duration d, const SystemState& state = {}) {
    clock_.Advance(d);
    return Words(engine_->Evaluate(state));
  }
  // The value of a series; nullopt: absent.
  std::optional<double> Metric(const std::string& name, const std::vector<std::string>& labels) const {
    for (const MetricFamily& family : metrics_.Collect()) {
      if (family.name != name) continue;
      for (const MetricSample& sample : family.samples) {
        if (sample.label_values == labels) return sample.value;
      }
    }
    return std::nullopt;
  }

  test::ManualClock clock_;
  MetricsRegistry metrics_;
  std::optional<PolicyEngine> engine_;
};

TEST_F(PolicyEngineTest, ClimbsActsAndLeaves) {
  PolicyEngine& engine = Start({Ttft({Limit(128), Shed(kBatch)})});
  Requests(20, milliseconds(500));
  EXPECT_THAT(After(seconds(0)), ElementsAre("limit_max_tokens+1"));
  EXPECT_EQ(engine.Decide({.max_tokens = 500}).enforced.max_tokens_by, "ttft");
  EXPECT_THAT(After(seconds(9)), IsEmpty()) << "cooldown";
  EXPECT_EQ(engine.Status()[0].held_by, "cooldown");
  EXPECT_THAT(After(seconds(1)), ElementsAre("shed+2"));
  EXPECT_EQ(engine.Decide({.qos_class = QosClass::kBatch}).enforced.shed_by, "ttft");
  clock_.Advance(seconds(61));  // the slow ones fall out
  Requests(20, milliseconds(50));
  EXPECT_THAT(After(seconds(0)), IsEmpty());
  EXPECT_THAT(After(seconds(20)), ElementsAre("shed-1"));
  EXPECT_EQ(engine.Decide({.qos_class = QosClass::kBatch}).enforced.shed_by, "");
  EXPECT_THAT(After(seconds(20)), ElementsAre("limit_max_tokens-0"));
  EXPECT_EQ(engine.Decide({.max_tokens = 500}).snapshot, nullptr);
  EXPECT_EQ(engine.Status()[0].step, 0);
  EXPECT_EQ(engine.Status()[0].actions, 2u);
}

TEST_F(PolicyEngineTest, OrdersSayWhoAndWhy) {
  Policy policy = Ttft({Alert("ops")});
  policy.objectives[0].severity = Severity::kInfo;
  policy.objectives.push_back(AtMost("cpu_percent", 50));
  policy.objectives[1].severity = Severity::kCritical;
  PolicyEngine& engine = Start({policy});
  Requests(20, milliseconds(500));
  const auto orders = engine.Evaluate({.cpu = 0.75});
  ASSERT_EQ(orders.size(), 1u);
  EXPECT_EQ(orders[0].policy, "ttft");
  EXPECT_EQ(orders[0].metric, "cpu_percent") << "the severer one";
  EXPECT_EQ(orders[0].severity, Severity::kCritical);
  EXPECT_EQ(orders[0].value, 75);
  EXPECT_EQ(orders[0].threshold, 50);
  EXPECT_EQ(orders[0].action, Alert("ops"));
  EXPECT_FALSE(orders[0].dry_run);
}

TEST_F(PolicyEngineTest, DryRunClimbsAlikeAndChangesNothing) {
  Policy policy = Ttft({Limit(128), Alert("ops")});
  policy.mode = PolicyMode::kDryRun;
  PolicyEngine& engine = Start({policy});
  Requests(20, milliseconds(500));
  EXPECT_THAT(After(seconds(0)), ElementsAre("(limit_max_tokens+1)"));
  EXPECT_THAT(After(seconds(10)), ElementsAre("(alert+2)"));
  const PolicyEffects effects = engine.Decide({.max_tokens = 500});
  EXPECT_EQ(effects.enforced.max_tokens_by, "");
  EXPECT_EQ(effects.dry_run.max_tokens_by, "ttft");
  EXPECT_NE(effects.snapshot, nullptr);
  EXPECT_EQ(Metric("sluice_qos_policy_step", {"ttft", "dry_run"}), 2);
  EXPECT_EQ(Metric("sluice_qos_actions_total", {"ttft", "alert", "dry_run", "taken"}), 1);
}

TEST_F(PolicyEngineTest, OffIsNotEvenJudged) {
  Policy policy = Ttft({Limit(128)});
  policy.mode = PolicyMode::kOff;
  PolicyEngine& engine = Start({policy});
  Requests(20, milliseconds(500));
  EXPECT_THAT(After(seconds(0)), IsEmpty());
  EXPECT_EQ(engine.Status()[0].objectives[0].state, ObjectiveState::kUnknown);
}

// Ancestor defect d: the dry_run of the file was never wired. Here the mode of each policy is what orders say.
TEST_F(PolicyEngineTest, ModeOfEachPolicyIsObeyed) {
  Policy dry = Ttft({Alert("ops")}), enforced = Ttft({Alert("ops")}), nobody = Ttft({Alert("ops")});
  dry.mode = PolicyMode::kDryRun;
  dry.priority = 2;
  enforced.id = "enforced";
  enforced.priority = 1;
  nobody.id = "nobody";
  nobody.enforced_percent = 0;
  Start({enforced, dry, nobody});
  Requests(20, milliseconds(500));
  EXPECT_THAT(After(seconds(0)), ElementsAre("(alert+1)", "alert+1", "(alert+1)")) << "by falling priority";
}

// Ancestor defect f, through the whole engine: also lower once-actions, also while it climbs.
TEST_F(PolicyEngineTest, OnceActionsAreRepeatedWhileTheViolationLasts) {
  Start({Ttft({Alert("ops"), Limit(64), Unload()})});
  std::vector<std::vector<std::string>> seen;
  for (int i = 0; i < 6; ++i) {
    Requests(20, milliseconds(500));
    seen.push_back(After(seconds(10)));
  }
  EXPECT_THAT(
      seen, ElementsAre(ElementsAre("alert+1"), ElementsAre("alert+2", "limit_max_tokens+2"),
                        ElementsAre("alert+3", "unload_idle_models+3"), ElementsAre("alert+3", "unload_idle_models+3"),
                        ElementsAre("alert+3", "unload_idle_models+3"), IsEmpty()))
      << "five actions in five minutes";
  EXPECT_EQ(engine_->Status()[0].held_by, "cap");
  EXPECT_EQ(Metric("sluice_qos_actions_total", {"ttft", "unload_idle_models", "enforce", "cap"}), 1);
}

// Ancestor defect c, through the whole engine.
TEST_F(PolicyEngineTest, ALoopIsSeenAndHeld) {
  Policy policy = Enforced("cpu", {AtMost("cpu_percent", 50)}, {Limit(64)});
  policy.max_reversals = 2;
  policy.max_actions = 100;
  Start({policy});
  std::vector<std::string> all;
  for (int i = 0; i < 4; ++i) {
    for (const double cpu : {0.9, 0.1, 0.1}) {
      for (const std::string& word : After(seconds(i == 0 && cpu > 0.5 ? 0 : 20), {.cpu = cpu})) all.push_back(word);
    }
  }
  EXPECT_THAT(all, ElementsAre("limit_max_tokens+1", "limit_max_tokens-0", "limit_max_tokens+1"));
  EXPECT_EQ(engine_->Status()[0].held_by, "loop");
  EXPECT_EQ(engine_->Status()[0].step, 1);
  EXPECT_EQ(Metric("sluice_qos_actions_total", {"cpu", "limit_max_tokens", "enforce", "loop"}), 3)
      << "each time that it wanted to turn around";
  for (int i = 0; i < 5; ++i) After(minutes(1), {.cpu = 0.1});
  EXPECT_EQ(engine_->Status()[0].step, 0) << "the window moved on";
}

// Ancestor defect e, through the whole engine.
TEST_F(PolicyEngineTest, MinimumThroughputActsWhenItIsMissed) {
  Policy policy = Enforced("throughput", {AtLeast("output_tokens_per_s", 100, 10)}, {Alert("ops")});
  Start({policy});
  clock_.Advance(seconds(60));
  const auto tokens = [&](int each) {
    for (int i = 0; i < 20; ++i) engine_->Record({.ended = clock_.Now(), .output_tokens = each});
  };
  tokens(1000);
  EXPECT_THAT(After(seconds(0), {.queued = 5}), IsEmpty()) << "20,000 in a minute are enough";
  clock_.Advance(seconds(120));
  tokens(10);
  EXPECT_THAT(After(seconds(0), {.queued = 0}), IsEmpty()) << "nobody waits";
  EXPECT_THAT(After(seconds(0), {.queued = 5}), ElementsAre("alert+1"));
}

TEST_F(PolicyEngineTest, MeasuresItsScopeOnly) {
  Policy premium = Ttft({Limit(1)});
  premium.id = "premium";
  premium.scope.tenants = {"gold", "silver"};
  PolicyEngine& engine = Start({premium});
  Requests(50, seconds(9), "bronze");
  EXPECT_THAT(After(seconds(0)), IsEmpty());
  EXPECT_EQ(engine.Status()[0].objectives[0].samples, 0);
  Requests(5, seconds(9), "gold");
  Requests(5, seconds(9), "silver");
  EXPECT_THAT(After(seconds(0)), ElementsAre("limit_max_tokens+1"));
  EXPECT_EQ(engine.Decide({.tenant = "bronze", .max_tokens = 9}).enforced.max_tokens_by, "");
  EXPECT_EQ(engine.Decide({.tenant = "gold", .max_tokens = 9}).enforced.max_tokens_by, "premium");
}

TEST_F(PolicyEngineTest, UnknownObjectivesHaveNoSeries) {
  PolicyEngine& engine = Start({Ttft({})});
  EXPECT_EQ(Metric("sluice_qos_objective_violated", {"ttft", "ttft_p95_ms"}), std::nullopt);
  Requests(9, milliseconds(500));
  After(seconds(0));
  EXPECT_EQ(Metric("sluice_qos_objective_violated", {"ttft", "ttft_p95_ms"}), std::nullopt);
  EXPECT_EQ(engine.Status()[0].objectives[0].state, ObjectiveState::kUnknown);
  EXPECT_EQ(engine.Status()[0].objectives[0].samples, 9);
  Requests(1, milliseconds(500));
  After(seconds(0));
  EXPECT_EQ(Metric("sluice_qos_objective_violated", {"ttft", "ttft_p95_ms"}), 1);
  EXPECT_NEAR(*Metric("sluice_qos_objective_value", {"ttft", "ttft_p95_ms"}), 500, 5);
  Requests(500, milliseconds(50));
  After(seconds(0));
  EXPECT_EQ(Metric("sluice_qos_objective_violated", {"ttft", "ttft_p95_ms"}), 0);
  After(seconds(120));
  EXPECT_EQ(Metric("sluice_qos_objective_violated", {"ttft", "ttft_p95_ms"}), std::nullopt);
}

TEST_F(PolicyEngineTest, ObjectivesOfOneMetricShareItsSeries) {
  Policy policy = Enforced("both", {AtMost("running_requests", 10), AtLeast("running_requests", 5)}, {});
  Start({policy});
  for (const auto& [running, violated] : {std::pair{7, 0}, std::pair{11, 1}, std::pair{3, 1}}) {
    After(seconds(1), {.running = static_cast<double>(running)});
    EXPECT_EQ(Metric("sluice_qos_objective_violated", {"both", "running_requests"}), violated) << running;
  }
}

TEST_F(PolicyEngineTest, ANewSetKeepsWhatStaysAndEndsWhatGoes) {
  Policy stays = Ttft({Limit(128), Limit(64)}), goes = Ttft({Shed(kBatch), Alert("ops"), Queue(kBatch, 3)}),
         changes = stays;
  goes.ladder = {Queue(kBatch, 3), Alert("ops"), Shed(kBatch)};
  goes.id = "goes";
  changes.id = "changes";
  PolicyEngine& engine = Start({stays, goes, changes});
  for (int i = 0; i < 3; ++i) {
    Requests(20, milliseconds(500));
    After(seconds(10));
  }
  EXPECT_EQ(engine.class_caps()[static_cast<size_t>(QosClass::kBatch)], 3);
  changes.cooldown = seconds(11);
  Requests(1, seconds(1));  // recorded under the old set, folded by the swap
  const auto set = SetOf({stays, changes}, 2);
  EXPECT_THAT(Words(engine.SetPolicies(set)),
              ElementsAre("shed-2", "queue-0", "limit_max_tokens-1", "limit_max_tokens-0"));
  EXPECT_EQ(engine.policies(), set);
  EXPECT_EQ(engine.Decide({}).epoch, 2u);
  EXPECT_EQ(engine.class_caps()[static_cast<size_t>(QosClass::kBatch)], kNoClassCap);
  const auto status = engine.Status();
  ASSERT_EQ(status.size(), 2u);
  EXPECT_EQ(status[0].step, 2) << "stays";
  EXPECT_EQ(status[1].step, 0) << "changed";
  EXPECT_EQ(Metric("sluice_qos_policy_step", {"goes", "enforce"}), std::nullopt);
  After(seconds(0));
  EXPECT_EQ(engine.Status()[0].objectives[0].samples, 61) << "the window stays";
  EXPECT_EQ(engine.Status()[1].objectives[0].samples, 0);
}

TEST_F(PolicyEngineTest, EffectsOutliveTheSet) {
  Policy policy = Ttft({Limit(128)});
  policy.id = "a-name-too-long-for-the-small-string-of-libstdc++";
  PolicyEngine& engine = Start({policy});
  Requests(20, milliseconds(500));
  After(seconds(0));
  const PolicyEffects effects = engine.Decide({.max_tokens = 500});
  engine.SetPolicies(SetOf({}, 2));
  engine.SetPolicies(SetOf({}, 3));
  engine_.reset();
  EXPECT_EQ(effects.enforced.max_tokens_by, "a-name-too-long-for-the-small-string-of-libstdc++");
}

TEST_F(PolicyEngineTest, WhatDoesNotFitIsCountedNotKept) {
  PolicyEngine& engine = Start({Ttft({})});
  constexpr int kRecorded = 20'000;
  Requests(kRecorded, milliseconds(1));
  After(seconds(0));
  const auto samples = engine.Status()[0].objectives[0].samples;
  EXPECT_EQ(samples, 8192) << "eight shards of 1024, whoever records";
  EXPECT_EQ(Metric("sluice_qos_outcomes_dropped_total", {}), kRecorded - samples);
}

TEST_F(PolicyEngineTest, AnUnsetEndIsNow) {
  PolicyEngine& engine = Start({Ttft({})});
  engine.Record({.ttft = milliseconds(1)});
  After(seconds(0));
  EXPECT_EQ(engine.Status()[0].objectives[0].samples, 1);
}

TEST_F(PolicyEngineTest, EverythingAtOnceFromManyThreads) {
  constexpr int kThreads = 4, kEach = 5000;
  Policy policy = Ttft({Limit(128), Shed(kBatch)});
  policy.cooldown = Duration::zero();
  policy.max_actions = 1000;
  PolicyEngine& engine = Start({policy});
  std::atomic<int> recorded{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        engine.Record({.tenant = "a", .ended = clock_.Now(), .ttft = milliseconds(500)});
        recorded.fetch_add(1);
        const PolicyEffects effects = engine.Decide({.qos_class = QosClass::kBatch, .max_tokens = 500});
        if (!effects.enforced.shed_by.empty()) {
          EXPECT_EQ(effects.enforced.max_tokens_by, "ttft") << "the lower step as well";
        }
      }
    });
  }
  std::thread evaluates([&] {
    for (uint64_t epoch = 2; !stop; ++epoch) {
      engine.Evaluate({});
      engine.Status();
      clock_.Advance(milliseconds(1));
      engine.SetPolicies(SetOf(epoch % 2 == 0 ? std::vector<Policy>{} : std::vector<Policy>{policy}, epoch));
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  evaluates.join();
  EXPECT_EQ(recorded, kThreads * kEach);
}

}  // namespace
}  // namespace sluice::qos
