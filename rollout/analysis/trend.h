// Does a quantity grow? The median of all pairwise slopes, which half of the points may spoil, with an interval.
#pragma once

#include <span>

namespace sluice::rollout {

struct TrendPoint {
  double seconds = 0;
  double value = 0;
};

struct Trend {
  bool known = false;        // at least 8 points over some time
  double slope = 0;          // per second
  double low = 0, high = 0;  // 95 %, widened for neighbours that resemble each other
  double median = 0, span_seconds = 0;
};

// Slope: Theil 1950, Sen 1968; interval by Kendall's statistic, its variance corrected for autocorrelation of the
// ranks' residuals (Hamed, Rao 1998, first lag). Quadratic in the points: give it at most some hundreds.
Trend TheilSen(std::span<const TrendPoint> points);

}  // namespace sluice::rollout
