// Is an objective met? Outcomes fall into windows; a window is read, the reading is judged. Nothing is met or violated
// without data.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/sketch.h"
#include "qos/policy.h"
#include "qos/policy_engine.h"
#include "qos/policy_ladder.h"
#include "qos/sliding_window.h"

namespace sluice::qos {

// The numbers of a RequestOutcome, in the units of Signal; negative: there is none.
struct OutcomeNumbers {
  double ttft_ms = -1, tpot_ms = -1, latency_ms = -1, queue_wait_ms = -1;
  int output_tokens = 0;
  bool counts = true, failed = false;
};
OutcomeNumbers NumbersOf(const RequestOutcome& outcome);

// One slice of an objective's window. Rates leave the sketch empty.
struct Tally {
  int64_t samples = 0;
  double sum = 0;  // of failures, successes or tokens
  Sketch values;

  void Merge(const Tally& other) {
    samples += other.samples;
    sum += other.sum;
    values.Merge(other.values);
  }
};
using ObjectiveWindow = SlidingWindow<Tally>;

void AddTo(const Objective& objective, const OutcomeNumbers& numbers, Tally* slice);

struct ObjectiveReading {
  std::optional<double> value;  // in the unit of the metric; none: not enough is known
  int64_t samples = 0;
};
// A rate needs half of its window to have passed; see Objective::min_samples.
ObjectiveReading ReadObjective(const Objective& objective, const ObjectiveWindow& window, const SystemState& state,
                               MonoTime now);

// kHeld counts as met. `someone_waits`: see Objective.
Verdict JudgeObjective(const Objective& objective, const ObjectiveReading& reading, double recovery_margin,
                       bool someone_waits);

// Of a policy: violated before unknown before held before recovered. Requires: not empty.
Verdict Together(const std::vector<Verdict>& verdicts);

}  // namespace sluice::qos
