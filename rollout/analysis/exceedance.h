// Is a latency's tail longer in the canary than `scale` times the baseline's? Counts how often each arm exceeds the
// baseline's recent 95th percentile, the canary scaled, and compares the counts: no distribution is assumed.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/sketch.h"
#include "rollout/analysis/e_process.h"
#include "rollout/analysis/window.h"

namespace sluice::rollout {

using Strata = std::array<Sketch, kStrata>;

// If the canary is stochastically at most `scale` times the baseline, P(canary > scale c) <= P(baseline > c) for every
// c that was fixed before the window: then RatioTest's hypothesis of a ratio of at most 1 holds, and with alternatives
// below 1 so does that of at least 1 in the other direction. c: the 95th percentile of the baseline's last windows, in
// each stratum by itself; a stratum whose past is too thin is left out. Bounds of sketch buckets are used so that
// rounding never speaks against the hypothesis. A value.
class Exceedance {
 public:
  // Windows: the newest kHistory, and as many before as it takes to have kMinHistory values: a hold-back of 1 % is
  // thin.
  static constexpr size_t kHistory = 5, kMaxHistory = 120;
  static constexpr uint64_t kMinHistory = 60;

  // `towards_worse`: alternatives above 1, else below.
  Exceedance(double scale, bool towards_worse);

  void Add(const Strata& canary, const Strata& baseline);
  double LogE() const { return test_.LogE(); }
  uint64_t canary_n() const { return canary_n_; }  // that were compared
  void ResetEvidence();                            // the baseline's past stays

  const std::vector<double>& state() const { return test_.state(); }
  bool Restore(const std::vector<double>& state) { return test_.Restore(state); }

 private:
  double scale_;
  bool towards_worse_;
  RatioTest test_;
  uint64_t canary_n_ = 0;
  std::array<std::deque<Sketch>, kStrata> history_;  // of the baseline
};

}  // namespace sluice::rollout
