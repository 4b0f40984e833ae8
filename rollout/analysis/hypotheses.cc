#include "rollout/analysis/hypotheses.h"

#include <algorithm>

namespace sluice::rollout {

RatioTest ErrorsWorse() { return {1, {1.5, 2, 3, 5, 10, 20}}; }

RatioTest ErrorsBetter(double max_ratio) { return {max_ratio, {max_ratio / 4, max_ratio / 2, max_ratio / 1.5}}; }

RateTest ErrorsAllowed(double allowed_rate) {
  const double p = allowed_rate;
  return {p, {p / 10, p / 3, p / 1.5}};
}

RateTest RateAbove(double rate) {
  return {rate, {std::min(0.5, 3 * rate), std::min(0.7, 10 * rate), std::min(0.9, 50 * rate)}};
}

RatioTest TailExceeds(bool towards_worse) {
  return towards_worse ? RatioTest(1, {1.5, 2, 3, 5, 10}) : RatioTest(1, {0.1, 0.25, 0.5});
}

}  // namespace sluice::rollout
