#include "qos/concurrency_limit.h"

#include <algorithm>

#include "base/check.h"

namespace sluice::qos {
namespace {

constexpr double kMinGradient = 0.5;       // Gradient2Limit
constexpr double kForgetting = 0.95;       // Gradient2Limit: of a long-term time that is far too long
constexpr double kFarTooLong = 2;          // Gradient2Limit: long-term over short-term time
constexpr double kWeightAtTheFloor = 0.2;  // of a sample: Envoy waits for 5 windows at the minimum

}  // namespace

ConcurrencyLimit::ConcurrencyLimit(const ConcurrencyLimitOptions& options) : options_(options) {
  SLUICE_CHECK(options.floor >= 1 && options.floor <= options.ceiling, "the floor of a limit is below its ceiling");
  SLUICE_CHECK(options.probe >= 1 && options.long_window >= 1 && options.tolerance >= 1, "a limit can move");
  SLUICE_CHECK(options.smoothing > 0 && options.smoothing <= 1, "smoothing is a weight");
  limit_ = options.enabled ? std::clamp(options.initial, options.floor, options.ceiling) : options.ceiling;
}

double ConcurrencyLimit::Gradient(const CongestionSample& sample) const {
  double gradient = 1;
  if (sample.queue_wait > options_.queue_wait_target) {
    gradient = ToMillis(options_.queue_wait_target) / ToMillis(sample.queue_wait);
  }
  // A nearly empty engine has another time per token than a full one: what it says is nothing to compare.
  const double now = ToMillis(sample.time_per_token);
  if (sample.running * 2 >= limit_ && now > options_.tolerance * long_time_ && long_time_ > 0) {
    gradient = std::min(gradient, options_.tolerance * long_time_ / now);
  }
  return std::max(gradient, kMinGradient);
}

void ConcurrencyLimit::Learn(Duration time_per_token) {
  const double now = ToMillis(time_per_token);
  if (long_time_ == 0) {
    long_time_ = now;
    return;
  }
  if (long_time_ > kFarTooLong * now) long_time_ *= kForgetting;
  if (limit_ <= options_.floor) {
    long_time_ += kWeightAtTheFloor * (now - long_time_);
  } else if (now <= (1 + options_.tolerance) / 2 * long_time_) {  // calm: half of what is tolerated
    long_time_ += 2.0 / (options_.long_window + 1) * (now - long_time_);
  }
}

int ConcurrencyLimit::Update(const CongestionSample& sample) {
  if (!options_.enabled) return limit();
  const double gradient = Gradient(sample);
  const bool in_use = sample.running * 2 >= limit_;
  if (in_use && sample.time_per_token > Duration::zero()) Learn(sample.time_per_token);
  if (gradient == 1 && !in_use) return limit();
  const double wanted = gradient < 1 ? limit_ * gradient : limit_ + options_.probe;
  limit_ += options_.smoothing * (wanted - limit_);
  limit_ = std::clamp(limit_, static_cast<double>(options_.floor), static_cast<double>(options_.ceiling));
  return limit();
}

}  // namespace sluice::qos
