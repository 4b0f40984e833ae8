// How often would a rollout be rolled back for nothing, and how soon when it is worse? Answered by the code that
// decides in production, beside rules that others use, on the same drawn requests.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "rollout/analysis/analysis.h"

namespace sluice::rollout {

struct SimulationOptions {
  double requests_per_second = 50;
  uint32_t canary_bps = 1'000;
  double base_error = 0.005;            // of the baseline
  double error_ratio = 1;               // canary to baseline, from the first request on
  double latency_ratio = 1;             // of every latency
  double median_ms = 200, sigma = 0.6;  // log-normal
  Duration window = std::chrono::seconds(10);
  Duration duration = std::chrono::hours(1);  // of a trial; watched after every window
  int trials = 1'000;
  uint64_t seed = 1;
  int threads = 1;
  AnalysisOptions analysis;
};

// What one rule did over all trials.
struct RuleResult {
  std::string rule;
  int alarms = 0;
  double low = 0, high = 0;           // 95 % of the share of trials with an alarm (Wilson)
  double median_canary_requests = 0;  // until the alarm, of the trials that had one; 0: none had
  double median_seconds = 0;
};

struct SimulationResult {
  int trials = 0;
  double canary_requests = 0;     // of one trial, on average
  std::vector<RuleResult> rules;  // "e-values", "ratio, sliding", "ratio, cumulative", "Mann-Whitney"
};

// Deterministic by its options, whatever `threads` is. `progress` (may be null) gets the number of trials that are
// done, from several threads at once. Rules: the production Analysis; the error or p95 ratio above its limit, over the
// last 1,000 requests or over all (both with 100 of the canary); Mann-Whitney's U (Mann, Whitney 1947, normal
// approximation) on the latencies of each window at 1 %, canary slower.
SimulationResult Simulate(const SimulationOptions& options, const std::function<void(int done)>& progress);

}  // namespace sluice::rollout
