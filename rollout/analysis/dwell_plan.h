// How long must a stage run? What the analysis needs, on average, to see a canary that is worse, and to pass one that
// is not.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "rollout/analysis/analysis.h"

namespace sluice::rollout {

struct Traffic {
  double events_per_second = 50;  // of both arms together; an event: see ArmWindow
  double base_error = 0.005;      // of the baseline, 0 to 1
  double sigma = 0.6;             // of the latencies' logarithms: log-normal, like simulation.h draws them
  Duration window = std::chrono::seconds(10);
};

// Infinite: never.
struct Need {
  double canary_events = 0;
  double seconds = 0;  // whole windows
};

// Until an alarm, of a canary that fails `error_ratio` times as often as the baseline, or whose latencies are
// `latency_ratio` times as long. Never, where that is less than the limit allows. A closed form: the evidence of one
// expected event times their number reaches the limit (Wald 1945, without the overshoot); simulations of the code that
// decides have their median within a factor of two of it, which is tested. kSequential only.
Need ToSeeErrors(const AnalysisOptions& options, const Traffic& traffic, uint32_t canary_bps, double error_ratio);
Need ToSeeLatency(const AnalysisOptions& options, const Traffic& traffic, uint32_t canary_bps, double latency_ratio);
// Until a canary like the baseline passes on errors, TTFT and latency: the slowest of them.
Need ToPass(const AnalysisOptions& options, const Traffic& traffic, uint32_t canary_bps);

}  // namespace sluice::rollout
