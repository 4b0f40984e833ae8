#include "rollout/analysis/simulation.h"

#include <atomic>

#include "gtest/gtest.h"

namespace sluice::rollout {
namespace {

SimulationOptions Small() {
  return {.requests_per_second = 50, .duration = std::chrono::minutes(10), .trials = 60, .seed = 20261123};
}

TEST(Simulation, IsTheSameOnAnyNumberOfThreads) {
  SimulationOptions options = Small();
  options.trials = 10;
  const SimulationResult one = Simulate(options, nullptr);
  options.threads = 3;
  std::atomic<int> told{0};  // atomic: threads tell at once
  const SimulationResult three = Simulate(options, [&told](int done) { told += done; });
  EXPECT_EQ(told, 10 * 11 / 2) << "each of 1 to 10, once";
  EXPECT_EQ(one.canary_requests, three.canary_requests);
  for (size_t r = 0; r < one.rules.size(); ++r) {
    EXPECT_EQ(one.rules[r].alarms, three.rules[r].alarms);
    EXPECT_EQ(one.rules[r].median_seconds, three.rules[r].median_seconds);
  }
}

// The quick version of the table in docs/rollouts.md.
TEST(Simulation, EValuesSpareWhatIsEqualAndFindWhatIsWorseWhereRatiosDoNot) {
  const SimulationResult equal = Simulate(Small(), nullptr);
  EXPECT_LE(equal.rules[0].alarms, 3) << "of 60 at alpha 1 %";
  EXPECT_GE(equal.rules[1].alarms, 30) << "the sliding ratio alarms for nothing";
  EXPECT_GE(equal.rules[3].alarms, 15) << "and so does Mann-Whitney, asked every window";
  SimulationOptions worse = Small();
  worse.error_ratio = 20;
  const SimulationResult errors = Simulate(worse, nullptr);
  EXPECT_EQ(errors.rules[0].alarms, 60);
  EXPECT_LT(errors.rules[0].median_canary_requests, 200);
  worse = Small();
  worse.latency_ratio = 2;
  EXPECT_EQ(Simulate(worse, nullptr).rules[0].alarms, 60);
}

}  // namespace
}  // namespace sluice::rollout
