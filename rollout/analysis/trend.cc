#include "rollout/analysis/trend.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sluice::rollout {
namespace {

constexpr size_t kMinPoints = 8;

double Median(std::vector<double>& sorted) {
  const size_t n = sorted.size();
  return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

// How much like its predecessor each residual is, -1..1.
double LagOne(std::span<const TrendPoint> points, double slope) {
  std::vector<double> residuals;
  for (const TrendPoint& p : points) residuals.push_back(p.value - slope * p.seconds);
  double mean = 0;
  for (const double r : residuals) mean += r / static_cast<double>(residuals.size());
  double product = 0, square = 0;
  for (size_t i = 0; i < residuals.size(); ++i) {
    square += (residuals[i] - mean) * (residuals[i] - mean);
    if (i > 0) product += (residuals[i] - mean) * (residuals[i - 1] - mean);
  }
  return square > 0 ? product / square : 0;
}

}  // namespace

Trend TheilSen(std::span<const TrendPoint> points) {
  Trend trend;
  if (points.size() < kMinPoints) return trend;
  std::vector<double> slopes, values;
  for (size_t i = 0; i < points.size(); ++i) {
    values.push_back(points[i].value);
    for (size_t j = i + 1; j < points.size(); ++j) {
      const double passed = points[j].seconds - points[i].seconds;
      if (passed > 0) slopes.push_back((points[j].value - points[i].value) / passed);
    }
  }
  trend.span_seconds = points.back().seconds - points.front().seconds;
  if (slopes.empty()) return trend;
  std::sort(slopes.begin(), slopes.end());
  std::sort(values.begin(), values.end());
  trend.known = true;
  trend.slope = Median(slopes);
  trend.median = Median(values);
  constexpr double kZ = 1.959963985;
  const auto n = static_cast<double>(points.size());
  const double alike = std::clamp(LagOne(points, trend.slope), 0.0, 0.9);
  const double variance = n * (n - 1) * (2 * n + 5) / 18 * (1 + alike) / (1 - alike);
  const double half = kZ * std::sqrt(variance) / 2, middle = static_cast<double>(slopes.size()) / 2;
  const auto at = [&slopes](double rank) {
    return slopes[static_cast<size_t>(std::clamp(rank, 0.0, static_cast<double>(slopes.size() - 1)))];
  };
  trend.low = at(std::floor(middle - half));
  trend.high = at(std::ceil(middle + half));
  return trend;
}

}  // namespace sluice::rollout
