#include "rollout/analysis/dwell_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "rollout/analysis/simulation.h"

namespace sluice::rollout {
namespace {

constexpr uint64_t kSeed = 20261123;
const Traffic kBusy = {};  // as the table of docs/rollouts.md

// Watched for eight times as long as planned, the code that decides has its median alarm within a factor of two.
void ExpectAsSimulated(const Need& planned, uint32_t bps, double error_ratio, double latency_ratio) {
  const std::string where =
      fmt::format("seed {}, {} bps, errors {}, latency {}", kSeed, bps, error_ratio, latency_ratio);
  const SimulationResult result = Simulate({.canary_bps = bps,
                                            .error_ratio = error_ratio,
                                            .latency_ratio = latency_ratio,
                                            .duration = FromMillis(8'000 * planned.seconds),
                                            .trials = 31,
                                            .seed = kSeed},
                                           nullptr);
  const double found = result.rules[0].median_seconds, window = ToSeconds(kBusy.window);
  EXPECT_GE(result.rules[0].alarms, 28) << where;
  EXPECT_LE(planned.seconds, 2 * found + window) << where;
  EXPECT_GE(planned.seconds, found / 2 - window) << where;
}

TEST(DwellPlan, IsWithinAFactorOfTwoOfTheSimulation) {
  for (const uint32_t bps : {1'000u, 5'000u}) {
    for (const double r : {3.0, 5.0, 20.0}) ExpectAsSimulated(ToSeeErrors({}, kBusy, bps, r), bps, r, 1);
    for (const double r : {1.5, 2.0}) ExpectAsSimulated(ToSeeLatency({}, kBusy, bps, r), bps, 1, r);
  }
}

// Windows until a canary that is like the baseline passes.
double WindowsToPass(uint32_t bps, uint64_t trial) {
  std::mt19937_64 random(kSeed + trial);
  std::lognormal_distribution<double> latency(std::log(200), kBusy.sigma);
  Analysis analysis(AnalysisOptions{});
  analysis.OnStage(bps);
  const double expected = kBusy.events_per_second * ToSeconds(kBusy.window), share = bps / 10'000.0;
  for (int w = 0; w < 1'000; ++w) {
    Window window{.attempt = "f#1", .replica = "r", .index = w, .length = kBusy.window, .canary_bps = bps};
    for (size_t arm = 0; arm < kArms; ++arm) {
      ArmWindow& out = window.arms[arm];
      const double mean = expected * (arm == static_cast<size_t>(Arm::kCanary) ? share : 1 - share);
      out.requests = out.events = out.first_users = std::poisson_distribution<uint64_t>(mean)(random);
      out.failures = std::binomial_distribution<uint64_t>(out.events, kBusy.base_error)(random);
      for (uint64_t i = out.failures; i < out.events; ++i) out.ttft_ms[0].Add(latency(random));
      out.latency_ms = out.ttft_ms;
    }
    analysis.Add(std::array{window});
    if (analysis.Judge().verdict == Verdict::kPass) return w + 1;
  }
  return 1'000;
}

TEST(DwellPlan, PassingTakesAboutAsLongAsPlanned) {
  for (const uint32_t bps : {1'000u, 5'000u}) {
    std::vector<double> windows;
    for (uint64_t trial = 0; trial < 31; ++trial) windows.push_back(WindowsToPass(bps, trial));
    std::sort(windows.begin(), windows.end());
    const double found = windows[windows.size() / 2];
    const double planned = ToPass({}, kBusy, bps).seconds / ToSeconds(kBusy.window);
    EXPECT_LE(planned, 2 * found + 1) << "seed " << kSeed << ", " << bps;
    EXPECT_GE(planned, found / 2 - 1) << "seed " << kSeed << ", " << bps;
  }
}

TEST(DwellPlan, LessTrafficFewerErrorsASmallerShareTakeLonger) {
  const AnalysisOptions options;
  const Need usual = ToSeeErrors(options, kBusy, 1'000, 5);
  EXPECT_GT(ToSeeErrors(options, {.events_per_second = 5}, 1'000, 5).seconds, 5 * usual.seconds);
  EXPECT_GT(ToSeeErrors(options, {.base_error = 0.0005}, 1'000, 5).canary_events, 9 * usual.canary_events);
  EXPECT_GT(ToSeeErrors(options, kBusy, 100, 5).seconds, 5 * usual.seconds);
  EXPECT_GT(ToSeeErrors({.alpha = 1e-6}, kBusy, 1'000, 5).canary_events, 2 * usual.canary_events);
  EXPECT_GT(ToSeeLatency(options, kBusy, 100, 2).seconds, ToSeeLatency(options, kBusy, 1'000, 2).seconds);
}

TEST(DwellPlan, WhatIsAllowedIsNeverSeenAndWithoutABaselineNothingIsCompared) {
  const AnalysisOptions options;
  EXPECT_TRUE(std::isinf(ToSeeErrors(options, kBusy, 1'000, 1.5).seconds)) << "2 is the limit";
  EXPECT_TRUE(std::isinf(ToSeeLatency(options, kBusy, 1'000, 1.2).seconds));
  EXPECT_TRUE(std::isinf(ToSeeErrors(options, {.base_error = 0}, 1'000, 5).seconds)) << "no errors, no evidence";
  EXPECT_TRUE(std::isinf(ToSeeErrors(options, kBusy, 10'000, 1.5).seconds)) << "0.75 % are allowed";
  EXPECT_LT(ToSeeErrors(options, kBusy, 10'000, 5).seconds, 600) << "2.5 % are not";
  EXPECT_TRUE(std::isinf(ToSeeLatency(options, kBusy, 10'000, 2).seconds));
  EXPECT_TRUE(std::isinf(ToPass(options, {.base_error = 0.02}, 10'000).seconds)) << "nor is the baseline's own rate";
  EXPECT_TRUE(std::isinf(ToSeeLatency(options, {.events_per_second = 0.01}, 1'000, 2).seconds)) << "no past at all";
}

}  // namespace
}  // namespace sluice::rollout
