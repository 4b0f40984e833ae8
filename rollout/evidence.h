// Why a rollout was promoted or rolled back: what was seen, kept for people who ask later.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rollout/analysis/analysis.h"
#include "rollout/rollout_machine.h"
#include "rollout/rollout_spec.h"
#include "rollout/rollout_state.h"
#include "state/state_store.h"

namespace sluice::rollout {

// How the checks developed over an attempt. A value, bounded: when it is full, every second point goes.
class EvidenceSeries {
 public:
  static constexpr size_t kMaxPoints = 240;
  struct Point {
    WallTime when{};
    uint32_t bps = 0;
    std::vector<double> e_values, ratios;  // in the order of the checks
  };
  void Add(WallTime when, uint32_t bps, const Judgement& judgement);
  void Clear() { points_.clear(); }
  const std::vector<Point>& points() const { return points_; }

 private:
  std::vector<Point> points_;
};

struct EvidenceParts {
  const RolloutSpec& spec;
  const RolloutState& before;
  const RolloutState& after;
  const Judgement& judgement;
  const Observation& seen;
  const EvidenceSeries& series;
  const std::vector<std::string>& examples;  // requests of the canary that failed
  const std::string& replica;                // that wrote it
};

// A JSON document: {"flag", "attempt", "epoch", "when_ms", "from", "to", "percent_before", "percent_after", "cause",
// "by_replica", "canary_events", "baseline_events", "checks": [{"name", "verdict", "canary", "baseline", "ratio",
// "low", "high", "e_value", "e_limit", "pass_e_value", "pass_limit", "samples"}], "series": {"checks": [names],
// "points": [{"when_ms", "percent", "e_values", "ratios"}]}, "config": {...}, "examples": [ids]}. Numbers that are not
// finite are null.
std::string MakeEvidence(const EvidenceParts& parts);

// Deletes what the store need not keep: all but the newest evidence of the flag, and trips of attempts before `now`'s,
// which wins whole wherever it is known. Blocks; what fails is left for the next time.
void ForgetOld(state::StateStore& store, const RolloutState& now);

}  // namespace sluice::rollout
