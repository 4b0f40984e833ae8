#include "rollout/analysis/exceedance.h"

#include "rollout/analysis/hypotheses.h"

namespace sluice::rollout {
namespace {

constexpr double kQuantile = 0.95;

void Shorten(std::deque<Sketch>* history) {
  uint64_t values = 0;
  for (const Sketch& window : *history) values += window.count();
  while (history->size() > Exceedance::kMaxHistory ||
         (history->size() > Exceedance::kHistory && values - history->front().count() >= Exceedance::kMinHistory)) {
    values -= history->front().count();
    history->pop_front();
  }
}

}  // namespace

Exceedance::Exceedance(double scale, bool towards_worse)
    : scale_(scale), towards_worse_(towards_worse), test_(TailExceeds(towards_worse)) {}

void Exceedance::ResetEvidence() {
  test_ = TailExceeds(towards_worse_);
  canary_n_ = 0;
}

void Exceedance::Add(const Strata& canary, const Strata& baseline) {
  for (size_t s = 0; s < kStrata; ++s) {
    Sketch past;
    for (const Sketch& window : history_[s]) past.Merge(window);
    if (past.count() >= kMinHistory && past.Quantile(kQuantile) >= Sketch::kSmallest) {
      const int bucket = Sketch::BucketOf(past.Quantile(kQuantile));
      // Towards worse the canary's bound is rounded up, else the canary would seem to exceed more than it does; towards
      // better it is rounded down.
      const int scaled = Sketch::BucketOf(scale_ * Sketch::UpperBound(bucket)) - (towards_worse_ ? 0 : 1);
      test_.Add(canary[s].count(), canary[s].CountAbove(scaled), baseline[s].count(), baseline[s].CountAbove(bucket));
      canary_n_ += canary[s].count();
    }
    if (baseline[s].count() == 0) continue;
    history_[s].push_back(baseline[s]);
    Shorten(&history_[s]);
  }
}

}  // namespace sluice::rollout
