#include "flags/sample_ratio.h"

#include <math.h>

#include <algorithm>
#include <cmath>

namespace sluice::flags {
namespace {

// Weight of the prior in keys, centred on the configured share: sensitive to deviations of a few percent of it.
constexpr double kPriorKeys = 100;
constexpr uint64_t kOneKey = uint64_t{1} << 32;
constexpr uint32_t kJudgeEvery = 64;
constexpr double kLargestLog = 690;  // the largest that exp() can still show

double LogGamma(double x) {
  int sign = 0;
  return lgamma_r(x, &sign);  // std::lgamma writes a global
}

double LogBeta(double a, double b) { return LogGamma(a) + LogGamma(b) - LogGamma(a + b); }

}  // namespace

double LogSampleRatioEValue(uint64_t in, uint64_t total, double share) {
  const double a = kPriorKeys * share, b = kPriorKeys * (1 - share);
  const auto ins = static_cast<double>(in), outs = static_cast<double>(total - in);
  return LogBeta(a + ins, b + outs) - LogBeta(a, b) - ins * std::log(share) - outs * std::log1p(-share);
}

SampleRatio::SampleRatio(Gauge& e_value, Gauge& alarm) : e_value_(e_value), alarm_(alarm) {
  e_value_.Set(1);
  alarm_.Set(0);
}

void SampleRatio::Restart(std::optional<double> share, uint32_t threshold) {
  share_ = 0;
  EndWindow(window_);
  threshold_ = threshold;
  e_value_.Set(1);
  alarm_.Set(0);
  share_ = share.value_or(0);
}

void SampleRatio::Observe(bool in, uint32_t sample, uint32_t threshold) {
  const double share = share_.load(std::memory_order_relaxed);
  if (share == 0 || threshold != threshold_.load(std::memory_order_relaxed)) return;
  const uint8_t window = window_.load(std::memory_order_relaxed);
  std::atomic<uint8_t>& slot = slots_[sample % kSlots];
  uint8_t seen = slot.load(std::memory_order_relaxed);
  if (seen == window || !slot.compare_exchange_strong(seen, window, std::memory_order_relaxed)) return;
  const uint64_t one = kOneKey + (in ? 1 : 0);
  const uint64_t counts = counts_.fetch_add(one, std::memory_order_relaxed) + one;
  const auto keys = static_cast<uint32_t>(counts >> 32);
  if (keys % kJudgeEvery == 0) {
    const double log_e = LogSampleRatioEValue(counts % kOneKey, keys, share);
    e_value_.Set(std::exp(std::min(log_e, kLargestLog)));
    if (log_e >= -std::log(kAlpha)) alarm_.Set(1);
  }
  if (keys == kWindowKeys) EndWindow(window);
}

void SampleRatio::EndWindow(uint8_t window) {
  const uint8_t next = window == UINT8_MAX ? 1 : static_cast<uint8_t>(window + 1);
  if (window_.compare_exchange_strong(window, next)) counts_ = 0;
}

}  // namespace sluice::flags
