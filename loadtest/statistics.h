// Estimates with intervals. Pure functions; `confidence` is 0.95 everywhere. Distributions come from Boost.Math.
//
// Percentiles: linear interpolation between order statistics (Hyndman & Fan 1996, type 7, as numpy). Their intervals:
// order statistics whose ranks enclose the percentile with that probability under the binomial distribution (David &
// Nagaraja, Order Statistics, §7.1); an end that the sample is too small for is infinite. Means: Student's t. Ratios of
// interleaved arms: Student's t over the logarithms of the pairs' ratios. Pooled gaps between tokens: bootstrap over
// requests, since the gaps of one request are not independent (Davison & Hinkley 1997, §3.8).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace sluice::loadtest {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A value with its 95 % interval. NaN: there is none (no samples); infinite ends: not enough samples for that end.
struct Estimate {
  double value = kNan, low = kNan, high = kNan;
  bool known() const { return value == value; }
  bool has_interval() const { return low == low && high == high; }
};

// `sorted` ascending, 0 <= p <= 1; NaN when empty.
double Percentile(const std::vector<double>& sorted, double p);
Estimate PercentileEstimate(const std::vector<double>& sorted, double p);
Estimate MeanEstimate(const std::vector<double>& values);
double StdDev(const std::vector<double>& values);  // n - 1; 0 with fewer than two
// Share of `hits` in `total`: Wilson's interval (1927).
Estimate ShareEstimate(int64_t hits, int64_t total);

// Percentile of all values of all groups; the interval resamples whole groups. Deterministic for a `seed`.
Estimate GroupedPercentile(const std::vector<std::vector<float>>& groups, double p, uint64_t seed);

// Ratio of a statistic between two arms, from interleaved pairs (all positive): exp of the mean log-ratio.
// Fewer than two pairs: no interval.
Estimate PairedRatio(const std::vector<double>& numerators, const std::vector<double>& denominators);
// The same for two independent sets of blocks: Welch's t over logarithms.
Estimate UnpairedRatio(const std::vector<double>& numerators, const std::vector<double>& denominators);

// Least-squares slope of y over x with Student's t interval; fewer than three points: NaN.
Estimate Slope(const std::vector<double>& x, const std::vector<double>& y);
// Median of pairwise slopes (Sen 1968) with the rank interval of Kendall's tau; at most 300 points are used, evenly
// picked.
Estimate TheilSen(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace sluice::loadtest
