#include "qos/policy.h"

#include "fmt/format.h"
#include "qos/policy_faults.h"
#include "tests/qos/policy_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

using test::IsOk;
using test::StatusIs;
using testing::HasSubstr;

constexpr uint8_t kBatch = Bit(QosClass::kBatch), kStandard = Bit(QosClass::kStandard);

Policy Good() { return Enforced("p", {AtMost("ttft_p95_ms", 550)}, {}); }

Policy With(std::vector<Action> ladder) {
  Policy policy = Good();
  policy.ladder = std::move(ladder);
  return policy;
}

std::string FaultOf(const Policy& policy) {
  const auto set = PolicySet::Create({policy}, 1);
  return set.ok() ? "" : std::string(set.status().message());
}

TEST(PolicySet, SortsByFallingPriorityAndKeepsTheOrderOfEquals) {
  std::vector<Policy> policies;
  for (const auto& [id, priority] :
       std::vector<std::pair<std::string, int>>{{"a", 0}, {"b", 10}, {"c", 0}, {"d", 10}}) {
    policies.push_back(Good());
    policies.back().id = id;
    policies.back().priority = priority;
  }
  const auto set = PolicySet::Create(policies, 7);
  ASSERT_THAT(set, IsOk());
  std::string order;
  for (const Policy& policy : (*set)->policies()) order += policy.id;
  EXPECT_EQ(order, "bdac");
  EXPECT_EQ((*set)->epoch(), 7u);
}

TEST(PolicySet, AFullLadderIsFine) {
  EXPECT_EQ(FaultOf(With({Queue(kBatch, 8), Limit(256), Queue(kBatch, 2), Limit(64), SwitchPipeline("baseline"),
                          OpenCircuit("ttft"), Unload(), PreferUpstream("other"), Shed(kBatch), Shed(kStandard),
                          Alert("ops"), Alert("boss")})),
            "");
  EXPECT_THAT(PolicySet::Create({}, 1), IsOk());
}

TEST(PolicySet, EveryFaultIsToldWithPolicyAndKey) {
  Policy first = Good(), second = With({Limit(64), Limit(64)});
  first.objectives.clear();
  const auto set = PolicySet::Create({first, second}, 1);
  EXPECT_THAT(set, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(std::string(set.status().message()),
            "policy \"p\": objectives: none; allowed: 1 to 8 objectives\n"
            "policy \"p\": id: is the id of an earlier policy; allowed: ids that differ\n"
            "policy \"p\": ladder[1]: the same limit_max_tokens again; allowed: each action once");
}

TEST(PolicySet, RefusesLaddersThatContradictThemselves) {
  const std::pair<std::vector<Action>, const char*> cases[] = {
      {{Limit(64), Limit(128)}, "ladder[1]: 128 tokens after 64; allowed: limits that tighten"},
      {{Alert("a"), Alert("a")}, "ladder[1]: the same alert again"},
      {{Shed(kBatch), Alert("a"), Shed(kBatch | kStandard)}, "ladder[2]: batch is shed by a lower step"},
      {{Shed(kBatch), Queue(kBatch, 4)}, "ladder[1]: batch is shed by a lower step"},
      {{Queue(kBatch, 4), Queue(kBatch | kStandard, 8)}, "ladder[1]: 8 of batch at once after 4"},
      {{SwitchPipeline("baseline"), SwitchPipeline("ttft")}, "ladder[1]: a second switch_pipeline"},
      {{PreferUpstream("a"), PreferUpstream("b")}, "ladder[1]: a second prefer_upstream"},
      {{SwitchPipeline("baseline"), OpenCircuit("baseline")}, "ladder[1]: opens the circuit of baseline, which"},
      {{OpenCircuit("baseline"), SwitchPipeline("baseline")}, "ladder[0]: opens the circuit of baseline, which"},
      {{Shed(0)}, "ladder[0]: shed without a class"},
      {{Shed(Bit(QosClass::kSystem))}, "ladder[0]: shed of system"},
      {{Queue(kBatch, 0)}, "ladder[0].at_most_running: 0; allowed: 1 to 1000000"},
      {{Limit(0)}, "ladder[0]: 0; allowed: 1 to 1048576"},
      {{Alert("")}, "ladder[0]: alert without a name"},
      {std::vector<Action>(17, Unload()), "ladder: too many steps"},
  };
  for (const auto& [ladder, fault] : cases) EXPECT_THAT(FaultOf(With(ladder)), HasSubstr(fault));
}

TEST(PolicySet, WhatActsOnTheWholeProcessIsNotForSome) {
  for (const Action& action : {Queue(kBatch, 4), OpenCircuit("ttft"), Unload()}) {
    Policy policy = With({action});
    policy.enforced_percent = 50;
    EXPECT_THAT(FaultOf(policy), HasSubstr("acts on the whole process, so not for a percentage of keys"));
  }
  Policy policy = With({Queue(kBatch, 4)});
  policy.scope.tenants = {"premium"};
  EXPECT_THAT(FaultOf(policy), HasSubstr("queue counts whole classes"));
  policy.acts_on = Scope{};
  EXPECT_EQ(FaultOf(policy), "") << "premium is measured, everybody is acted on";
}

TEST(PolicySet, AClassMustBeAmongThoseActedOn) {
  Policy policy = With({Shed(kBatch)});
  policy.scope.classes = Bit(QosClass::kInteractive);
  EXPECT_THAT(FaultOf(policy), HasSubstr("shed of batch, but the policy acts on interactive only"));
  policy.acts_on = Scope{.classes = kBatch};
  EXPECT_EQ(FaultOf(policy), "");
}

TEST(PolicySet, ObjectivesThatCannotBe) {
  const std::pair<std::vector<Objective>, const char*> cases[] = {
      {{AtLeast("ttft_p95_ms", 5)}, "objectives[0].at_least: a minimum of ttft_p95_ms"},
      {{AtLeast("cpu_percent", 5)}, "objectives[0].at_least: a minimum of cpu_percent"},
      {{AtMost("cpu_percent", 101)}, "objectives[0].at_most: 101; allowed: 0 to 100"},
      {{AtMost("ttft_p95_ms", -1)}, "objectives[0].at_most: -1; allowed: 0 to 1000000000"},
      {{AtMost("ttft_p95_ms", 1, 0)}, "objectives[0].min_samples: 0; allowed: 1 to 1000000"},
      {{AtMost("requests_per_s", 5), AtLeast("requests_per_s", 9)},
       "objectives[1].at_least: requests_per_s can never be met"},
      {{AtMost("ttft_p95_ms", 5), AtMost("ttft_p95_ms", 9)}, "objectives[1].at_most: ttft_p95_ms has this kind"},
      {std::vector<Objective>(9, AtMost("cpu_percent", 5)), "objectives: too many"},
  };
  for (const auto& [objectives, fault] : cases) {
    Policy policy = Good();
    policy.objectives = objectives;
    EXPECT_THAT(FaultOf(policy), HasSubstr(fault));
  }
  Policy unlike = Good();
  unlike.objectives[0].signal = Signal::kTpot;
  EXPECT_THAT(FaultOf(unlike), HasSubstr("objectives[0].metric: is not what the signal says"));
  Policy unknown = Good();
  unknown.objectives[0].metric = "ttft_95";
  EXPECT_THAT(FaultOf(unknown), HasSubstr("objectives[0].metric: unknown metric; allowed: ttft_pNN_ms, "));
}

TEST(PolicySet, NumbersOutOfRange) {
  const std::pair<void (*)(Policy&), const char*> cases[] = {
      {[](Policy& p) { p.id = "two words"; }, "id: is not a name"},
      {[](Policy& p) { p.id = ""; }, "id: is not a name"},
      {[](Policy& p) { p.enforced_percent = 100.1; }, "enforced_percent: 100.1; allowed: 0 to 100"},
      {[](Policy& p) { p.priority = 2'000'000; }, "priority: 2000000"},
      {[](Policy& p) { p.cooldown = -Duration(1); }, "cooldown_ms"},
      {[](Policy& p) { p.violated_for = std::chrono::hours(25); },
       "violated_for_ms: 90000000 ms; allowed: 0 to 86400000"},
      {[](Policy& p) { p.recovered_for = -Duration(1); }, "recovered_for_ms"},
      {[](Policy& p) { p.recovery_margin = 0.95; }, "recovery_margin_percent"},
      {[](Policy& p) { p.max_actions = 0; }, "max_actions: 0; allowed: 1 to 1000"},
      {[](Policy& p) { p.action_window = Duration(5); }, "action_window_ms"},
      {[](Policy& p) { p.max_reversals = -1; }, "max_reversals: -1"},
      {[](Policy& p) { p.objectives[0].window = std::chrono::hours(2); }, "objectives[0].window_ms: 7200000 ms"},
  };
  for (const auto& [damage, fault] : cases) {
    Policy policy = Good();
    damage(policy);
    EXPECT_THAT(FaultOf(policy), HasSubstr(fault));
  }
}

TEST(PolicySet, IsBounded) {
  std::vector<Policy> many;
  for (size_t i = 0; i <= PolicySet::kMaxPolicies; ++i) {
    many.push_back(Good());
    many.back().id = fmt::format("p{}", i);
  }
  EXPECT_THAT(PolicySet::Create(many, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one policy too many")));
  many.pop_back();
  EXPECT_THAT(PolicySet::Create(many, 1), IsOk());
  for (Policy& policy : many) {
    policy.objectives = {AtMost("cpu_percent", 5), AtMost("memory_percent", 5), AtMost("kv_usage_percent", 5)};
  }
  EXPECT_THAT(PolicySet::Create(many, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too many in all policies together")));
}

TEST(PolicyMetric, NamesCarryTheirQuantile) {
  const std::pair<const char*, double> good[] = {
      {"ttft_p95_ms", 0.95}, {"tpot_p50_ms", 0.5}, {"latency_p99.9_ms", 0.999}, {"queue_wait_p0.5_ms", 0.005}};
  for (const auto& [name, quantile] : good) {
    const auto metric = ParsePolicyMetric(name);
    ASSERT_THAT(metric, IsOk()) << name;
    EXPECT_EQ(metric->quantile, quantile) << name;
    EXPECT_EQ(KindOf(metric->signal), SignalKind::kSample) << name;
  }
  for (const char* name : {"ttft_p0_ms", "ttft_p100_ms", "ttft_p99.99_ms", "ttft_p095_ms", "ttft_p95.0_ms",
                           "ttft_p.5_ms", "ttft_p_ms", "ttft_p-5_ms", "ttft_p1e1_ms"}) {
    EXPECT_THAT(ParsePolicyMetric(name),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not with this quantile")))
        << name;
  }
  EXPECT_THAT(ParsePolicyMetric("tfft_p95_ms"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("did you mean ttft_p95_ms?")));
  EXPECT_THAT(ParsePolicyMetric("error_rate"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unknown")));
  EXPECT_THAT(ParsePolicyMetric(""), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ParsePolicyMetric(std::string(5000, 'x')), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace sluice::qos
