#include "qos/breaker_registry.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

class BreakerRegistryTest : public testing::Test {
 protected:
  double Value(std::string_view name, const std::vector<std::string>& labels) {
    for (const MetricFamily& family : metrics_.Collect()) {
      if (family.name != name) continue;
      for (const MetricSample& sample : family.samples) {
        if (sample.label_values == labels) return sample.value;
      }
    }
    return -1;
  }
  test::ManualClock clock_;
  MetricsRegistry metrics_;
};

TEST_F(BreakerRegistryTest, OneBreakerForEachPair) {
  BreakerRegistry registry({}, clock_, metrics_);
  CircuitBreaker& a = registry.Get("m", "ttft");
  EXPECT_EQ(&a, &registry.Get("m", "ttft"));
  EXPECT_NE(&a, &registry.Get("m", "baseline"));
  EXPECT_NE(&a, &registry.Get("n", "ttft"));
  EXPECT_NE(&registry.Get("ab", "c"), &registry.Get("a", "bc"));
}

TEST_F(BreakerRegistryTest, BeyondTheLimitOneIsShared) {
  BreakerRegistry registry({}, clock_, metrics_, 2);
  CircuitBreaker& a = registry.Get("a", "ttft");
  CircuitBreaker& b = registry.Get("b", "ttft");
  CircuitBreaker& c = registry.Get("c", "ttft");
  EXPECT_EQ(&c, &registry.Get("d", "ttft"));
  EXPECT_NE(&c, &a);
  EXPECT_NE(&c, &b);
  EXPECT_EQ(&a, &registry.Get("a", "ttft")) << "those that exist stay";
  std::vector<std::string> names;
  for (const auto& entry : registry.List()) names.push_back(entry.model + "/" + entry.pipeline);
  EXPECT_THAT(names, testing::ElementsAre("a/ttft", "b/ttft", "other/other"));
}

TEST_F(BreakerRegistryTest, ListBringsMetricsUpToDate) {
  BreakerRegistry registry({}, clock_, metrics_);
  CircuitBreaker& breaker = registry.Get("m", "ttft");
  registry.List();
  EXPECT_EQ(Value("sluice_qos_breaker_state", {"m", "ttft", "closed"}), 1);
  EXPECT_EQ(Value("sluice_qos_breaker_state", {"m", "ttft", "open"}), 0);
  breaker.ForceState(BreakerState::kForcedOpen);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(breaker.TryAcquire().has_value());
  const auto entries = registry.List();
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].snapshot.state, BreakerState::kForcedOpen);
  EXPECT_EQ(Value("sluice_qos_breaker_state", {"m", "ttft", "closed"}), 0);
  EXPECT_EQ(Value("sluice_qos_breaker_state", {"m", "ttft", "forced_open"}), 1);
  EXPECT_EQ(Value("sluice_qos_breaker_not_permitted_total", {"m", "ttft"}), 3);
  registry.List();
  EXPECT_EQ(Value("sluice_qos_breaker_not_permitted_total", {"m", "ttft"}), 3) << "counted once";
}

TEST_F(BreakerRegistryTest, ForcesByNameAndTellsTheListener) {
  std::vector<std::string> heard;
  BreakerRegistry* self = nullptr;
  BreakerRegistry registry({}, clock_, metrics_, 8,
                           [&](std::string_view model, std::string_view pipeline, const Transition& t) {
                             heard.push_back(std::string(model) + "/" + std::string(pipeline) + " " +
                                             std::string(BreakerStateName(t.to)) + " " + t.who);
                             EXPECT_EQ(self->Get(model, pipeline).state(), t.to) << "no lock is held";
                           });
  self = &registry;
  for (const char* model : {"a", "b"}) {
    for (const char* pipeline : {"baseline", "ttft"}) registry.Get(model, pipeline);
  }
  EXPECT_EQ(registry.Force("a", "ttft", BreakerState::kForcedOpen, {.who = "ops"}), 1);
  EXPECT_EQ(registry.Force("", "ttft", BreakerState::kClosed, {.who = "ops"}), 2);
  EXPECT_EQ(registry.Force("b", "", BreakerState::kDisabled, {}), 2);
  EXPECT_EQ(registry.Force("c", "ttft", BreakerState::kDisabled, {}), 0);
  EXPECT_THAT(heard, testing::ElementsAre("a/ttft forced_open ops", "a/ttft closed ops", "b/ttft closed ops",
                                          "b/baseline disabled ", "b/ttft disabled "));
  EXPECT_EQ(Value("sluice_qos_breaker_transitions_total", {"b", "ttft", "disabled", "forced"}), 1);
}

TEST_F(BreakerRegistryTest, TickMakesWhatIsDue) {
  BreakerRegistry registry({.automatic_transition_to_half_open = true}, clock_, metrics_);
  registry.Get("m", "ttft").ForceState(BreakerState::kOpen);
  clock_.Advance(std::chrono::seconds(60));
  registry.Tick();
  EXPECT_EQ(Value("sluice_qos_breaker_transitions_total", {"m", "ttft", "half_open", "wait_over"}), 1);
}

TEST_F(BreakerRegistryTest, RatesAreMetrics) {
  BreakerRegistry registry({.minimum_number_of_calls = 2}, clock_, metrics_);
  CircuitBreaker& breaker = registry.Get("m", "ttft");
  breaker.TryAcquire()->Report(CallOutcome::kSuccess, Duration::zero());
  registry.List();
  EXPECT_EQ(Value("sluice_qos_breaker_failure_rate", {"m", "ttft"}), -1);
  breaker.TryAcquire()->Report(CallOutcome::kSuccess, std::chrono::minutes(2));
  registry.List();
  EXPECT_EQ(Value("sluice_qos_breaker_failure_rate", {"m", "ttft"}), 0);
  EXPECT_EQ(Value("sluice_qos_breaker_slow_call_rate", {"m", "ttft"}), 0.5);
}

TEST_F(BreakerRegistryTest, ThreadsGetTheSameBreakers) {
  BreakerRegistry registry({}, clock_, metrics_, 8);
  std::vector<std::vector<CircuitBreaker*>> seen(4);
  std::vector<std::thread> threads;
  for (auto& mine : seen) {
    threads.emplace_back([&registry, &mine] {
      for (int i = 0; i < 200; ++i) mine.push_back(&registry.Get("m" + std::to_string(i % 8), "ttft"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : seen) EXPECT_EQ(mine, seen[0]);
  EXPECT_EQ(registry.List().size(), 8u);
}

}  // namespace
}  // namespace sluice::qos
