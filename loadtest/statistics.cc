#include "loadtest/statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>
#include <random>

namespace sluice::loadtest {
namespace {

constexpr double kAlpha = 0.05;
constexpr int kResamples = 1000;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double StudentT(double degrees) { return boost::math::quantile(boost::math::students_t(degrees), 1 - kAlpha / 2); }

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Estimate OfResamples(double value, std::vector<double> resamples) {
  std::sort(resamples.begin(), resamples.end());
  return {value, Percentile(resamples, kAlpha / 2), Percentile(resamples, 1 - kAlpha / 2)};
}

bool AllPositive(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return v > 0 && std::isfinite(v); });
}

std::vector<double> Logs(std::vector<double> values) {
  for (double& v : values) v = std::log(v);
  return values;
}

Estimate Exp(const Estimate& e) { return {std::exp(e.value), std::exp(e.low), std::exp(e.high)}; }

// Percentile of the values of `order` (indices sorted by value) when value i counts weights[group[i]] times.
double WeightedPercentile(const std::vector<float>& sorted, const std::vector<uint32_t>& group,
                          const std::vector<int>& weights, double p) {
  int64_t total = 0;
  for (const uint32_t g : group) total += weights[g];
  if (total == 0) return kNan;
  const auto rank = static_cast<int64_t>(p * static_cast<double>(total - 1));
  int64_t seen = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    seen += weights[group[i]];
    if (seen > rank) return sorted[i];
  }
  return sorted.back();
}

}  // namespace

double Percentile(const std::vector<double>& sorted, double p) {
  if (sorted.empty()) return kNan;
  const double rank = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Estimate PercentileEstimate(const std::vector<double>& sorted, double p) {
  if (sorted.empty()) return {};
  const auto n = static_cast<double>(sorted.size());
  // P(X(l) <= percentile) = P(B >= l), P(percentile < X(u)) = P(B < u), for B ~ Binomial(n, p); ranks from 1.
  using Policy = boost::math::policies::policy<
      boost::math::policies::discrete_quantile<boost::math::policies::integer_round_outwards>>;
  const boost::math::binomial_distribution<double, Policy> ranks(n, p);
  const bool has_low = boost::math::cdf(ranks, 0) <= kAlpha / 2;
  const double low = boost::math::quantile(ranks, kAlpha / 2) + 1;
  const double high = boost::math::quantile(boost::math::complement(ranks, kAlpha / 2)) + 1;
  return {Percentile(sorted, p), has_low ? sorted[static_cast<size_t>(low) - 1] : 0,
          high > n ? kInfinity : sorted[static_cast<size_t>(high) - 1]};
}

Estimate MeanEstimate(const std::vector<double>& values) {
  if (values.empty()) return {};
  const double mean = Mean(values);
  if (values.size() < 2) return {mean, kNan, kNan};
  const auto n = static_cast<double>(values.size());
  const double margin = StudentT(n - 1) * StdDev(values) / std::sqrt(n);
  return {mean, mean - margin, mean + margin};
}

double StdDev(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = Mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

Estimate ShareEstimate(int64_t hits, int64_t total) {
  if (total == 0) return {};
  const double n = static_cast<double>(total), p = static_cast<double>(hits) / n;
  const double z = boost::math::quantile(boost::math::normal(), 1 - kAlpha / 2);
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double margin = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {p, hits == 0 ? 0 : centre - margin, hits == total ? 1 : centre + margin};
}

Estimate GroupedPercentile(const std::vector<std::vector<float>>& groups, double p, uint64_t seed) {
  std::vector<std::pair<float, uint32_t>> pooled;
  for (uint32_t g = 0; g < groups.size(); ++g) {
    for (const float v : groups[g]) pooled.emplace_back(v, g);
  }
  if (pooled.empty()) return {};
  std::sort(pooled.begin(), pooled.end());
  std::vector<float> sorted;
  std::vector<uint32_t> group;
  for (const auto& [v, g] : pooled) {
    sorted.push_back(v);
    group.push_back(g);
  }
  const std::vector<double> exact(sorted.begin(), sorted.end());
  if (groups.size() < 2) return {Percentile(exact, p), kNan, kNan};
  // One resample costs a pass over all gaps: fewer of them for long runs.
  const int resamples = std::clamp(static_cast<int>(200'000'000 / sorted.size()), 100, kResamples);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<size_t> pick(0, groups.size() - 1);
  std::vector<double> values;
  std::vector<int> weights(groups.size());
  for (int r = 0; r < resamples; ++r) {
    std::fill(weights.begin(), weights.end(), 0);
    for (size_t i = 0; i < groups.size(); ++i) ++weights[pick(random)];
    if (const double v = WeightedPercentile(sorted, group, weights, p); v == v) values.push_back(v);
  }
  return OfResamples(Percentile(exact, p), values);
}

Estimate PairedRatio(const std::vector<double>& numerators, const std::vector<double>& denominators) {
  const size_t n = std::min(numerators.size(), denominators.size());
  const std::vector<double> a(numerators.begin(), numerators.begin() + static_cast<long>(n));
  const std::vector<double> b(denominators.begin(), denominators.begin() + static_cast<long>(n));
  if (n == 0 || !AllPositive(a) || !AllPositive(b)) return {};
  std::vector<double> differences;
  for (size_t i = 0; i < n; ++i) differences.push_back(std::log(a[i] / b[i]));
  return Exp(MeanEstimate(differences));
}

Estimate UnpairedRatio(const std::vector<double>& numerators, const std::vector<double>& denominators) {
  if (numerators.empty() || denominators.empty() || !AllPositive(numerators) || !AllPositive(denominators)) return {};
  const std::vector<double> a = Logs(numerators), b = Logs(denominators);
  const double difference = Mean(a) - Mean(b);
  if (a.size() < 2 || b.size() < 2) return {std::exp(difference), kNan, kNan};
  const double va = StdDev(a) * StdDev(a) / static_cast<double>(a.size());
  const double vb = StdDev(b) * StdDev(b) / static_cast<double>(b.size());
  if (va + vb == 0) return {std::exp(difference), std::exp(difference), std::exp(difference)};
  const double degrees = (va + vb) * (va + vb) /
                         (va * va / static_cast<double>(a.size() - 1) + vb * vb / static_cast<double>(b.size() - 1));
  const double margin = StudentT(degrees) * std::sqrt(va + vb);
  return Exp({difference, difference - margin, difference + margin});
}

Estimate Slope(const std::vector<double>& x, const std::vector<double>& y) {
  const size_t n = std::min(x.size(), y.size());
  if (n < 3) return {};
  const double mx = Mean(x), my = Mean(y);
  double sxx = 0, sxy = 0;
  for (size_t i = 0; i < n; ++i) {
    sxx += (x[i] - mx) * (x[i] - mx);
    sxy += (x[i] - mx) * (y[i] - my);
  }
  if (sxx == 0) return {};
  const double slope = sxy / sxx;
  double residuals = 0;
  for (size_t i = 0; i < n; ++i) {
    const double r = y[i] - my - slope * (x[i] - mx);
    residuals += r * r;
  }
  const double margin = StudentT(static_cast<double>(n - 2)) * std::sqrt(residuals / static_cast<double>(n - 2) / sxx);
  return {slope, slope - margin, slope + margin};
}

Estimate TheilSen(const std::vector<double>& x, const std::vector<double>& y) {
  const size_t all = std::min(x.size(), y.size());
  const size_t stride = (all + 299) / 300;
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < all; i += std::max<size_t>(stride, 1)) points.emplace_back(x[i], y[i]);
  std::vector<double> slopes;
  for (size_t i = 0; i < points.size(); ++i) {
    for (size_t j = i + 1; j < points.size(); ++j) {
      if (points[i].first == points[j].first) continue;
      slopes.push_back((points[j].second - points[i].second) / (points[j].first - points[i].first));
    }
  }
  if (points.size() < 3 || slopes.empty()) return {};
  std::sort(slopes.begin(), slopes.end());
  const auto n = static_cast<double>(points.size()), m = static_cast<double>(slopes.size());
  const double z = boost::math::quantile(boost::math::normal(), 1 - kAlpha / 2);
  const double half = z * std::sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2;
  const auto at = [&](double rank) { return slopes[static_cast<size_t>(std::clamp(rank, 0.0, m - 1))]; };
  return {Percentile(slopes, 0.5), at(std::floor(m / 2 - half)), at(std::ceil(m / 2 + half))};
}

}  // namespace sluice::loadtest
