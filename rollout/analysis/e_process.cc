#include "rollout/analysis/e_process.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace sluice::rollout {
namespace {

// Log of the mean of the exponentials.
double LogMean(const std::vector<double>& logs) {
  const double highest = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (const double l : logs) sum += std::exp(l - highest);
  return highest + std::log(sum / static_cast<double>(logs.size()));
}

bool Take(const std::vector<double>& from, std::vector<double>* to) {
  const bool fit = from.size() == to->size() && std::all_of(from.begin(), from.end(), [](double v) { return v == v; });
  if (fit) *to = from;
  return fit;
}

// What `x1` and `x0` events say for `ratio`, when `n1` and `n0` could have had them.
double LogLikelihood(double ratio, double n1, double x1, double n0, double x0) {
  const double canary = ratio * n1 / (ratio * n1 + n0);
  return x1 * std::log(canary) + x0 * std::log1p(-canary);
}

}  // namespace

RatioTest::RatioTest(double null_ratio, std::vector<double> alternatives)
    : null_ratio_(null_ratio), alternatives_(std::move(alternatives)), log_(alternatives_.size(), 0.0) {}

void RatioTest::Add(uint64_t canary_n, uint64_t canary_x, uint64_t baseline_n, uint64_t baseline_x) {
  if (canary_n == 0 || baseline_n == 0 || canary_x + baseline_x == 0) return;
  const auto n1 = static_cast<double>(canary_n), x1 = static_cast<double>(canary_x);
  const auto n0 = static_cast<double>(baseline_n), x0 = static_cast<double>(baseline_x);
  const double null = LogLikelihood(null_ratio_, n1, x1, n0, x0);
  for (size_t j = 0; j < log_.size(); ++j) log_[j] += LogLikelihood(alternatives_[j], n1, x1, n0, x0) - null;
}

double RatioTest::LogE() const { return LogMean(log_); }

bool RatioTest::Restore(const std::vector<double>& state) { return Take(state, &log_); }

RateTest::RateTest(double null_rate, std::vector<double> alternatives)
    : null_rate_(null_rate), alternatives_(std::move(alternatives)), log_(alternatives_.size(), 0.0) {}

void RateTest::Add(uint64_t n, uint64_t x) {
  const auto hits = static_cast<double>(std::min(x, n)), rest = static_cast<double>(n - std::min(x, n));
  for (size_t j = 0; j < log_.size(); ++j) {
    const double p = alternatives_[j];
    log_[j] += hits * std::log(p / null_rate_) + rest * (std::log1p(-p) - std::log1p(-null_rate_));
  }
}

double RateTest::LogE() const { return LogMean(log_); }

bool RateTest::Restore(const std::vector<double>& state) { return Take(state, &log_); }

void PooledRatio::Add(uint64_t canary_n, uint64_t canary_x, uint64_t baseline_n, uint64_t baseline_x) {
  if (canary_n == 0 || baseline_n == 0) return;
  const auto n1 = static_cast<double>(canary_n), x1 = static_cast<double>(canary_x);
  const auto n0 = static_cast<double>(baseline_n), x0 = static_cast<double>(baseline_x);
  const double n = n1 + n0;
  r_ += x1 * n0 / n;
  s_ += x0 * n1 / n;
  p_ += (n1 * n0 * (x1 + x0) - x1 * x0 * n) / (n * n);
}

PooledRatio::Estimate PooledRatio::Get() const {
  constexpr double kZ = 1.959963985;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (r_ == 0 && s_ == 0) return {};
  if (s_ == 0) return {.ratio = kInfinity, .low = 0, .high = kInfinity, .known = true};
  if (r_ == 0) return {.ratio = 0, .low = 0, .high = kInfinity, .known = true};
  const double ratio = r_ / s_, spread = std::exp(kZ * std::sqrt(std::max(0.0, p_ / (r_ * s_))));
  return {.ratio = ratio, .low = ratio / spread, .high = ratio * spread, .known = true};
}

bool PooledRatio::Restore(const std::vector<double>& state) {
  std::vector<double> mine = this->state();
  if (!Take(state, &mine)) return false;
  r_ = mine[0];
  s_ = mine[1];
  p_ = mine[2];
  return true;
}

}  // namespace sluice::rollout
