#include "qos/overload_guard.h"

#include <string>

#include "base/status.h"
#include "fmt/format.h"

namespace sluice::qos {

OverloadGuard::OverloadGuard(const OverloadOptions& options, MetricsRegistry& metrics)
    : options_(options),
      shrink_(
          metrics.AddGauge("sluice_overload_shrink", "How much of the caches is to be given back, 0 to 1").With({})) {
  auto& pressure =
      metrics.AddGauge("sluice_overload_pressure", "Share of the limit in use; -1: not known", {"resource"});
  auto& shares = metrics.AddGauge("sluice_overload_shed_share", "Share of the requests that are refused", {"class"});
  auto& refusals = metrics.AddCounter("sluice_overload_refusals_total", "Requests refused for overload", {"class"});
  for (size_t i = 0; i < kResourceCount; ++i) {
    pressure_[i] = &pressure.With({std::string(ResourceName(static_cast<Resource>(i)))});
    pressure_[i]->Set(-1);
  }
  for (size_t i = 0; i < kQosClassCount; ++i) {
    const std::string name(QosClassName(static_cast<QosClass>(i)));
    shares_[i] = &shares.With({name});
    refusals_[i] = &refusals.With({name});
  }
}

OverloadState OverloadGuard::Update(const Pressure& pressure) {
  const OverloadState state = JudgeOverload(options_, pressure);
  for (size_t i = 0; i < kResourceCount; ++i) pressure_[i]->Set(pressure[i]);
  for (size_t i = 0; i < kQosClassCount; ++i) {
    const double share = ShedShare(state, static_cast<QosClass>(i));
    shares_[i]->Set(share);
    share_[i].store(share, std::memory_order_relaxed);
  }
  shrink_.Set(state.shrink_caches);
  cause_.store(state.cause, std::memory_order_relaxed);
  MutexLock lock(mu_);
  state_ = state;
  return state;
}

absl::Status OverloadGuard::Admit(QosClass c, double draw) const {
  const auto i = static_cast<size_t>(c);
  const double share = share_[i].load(std::memory_order_relaxed);
  if (draw >= share) return absl::OkStatus();
  refusals_[i]->Add();
  const std::string resource(ResourceName(cause_.load(std::memory_order_relaxed)));
  return MakeError(Reason::kOverloaded,
                   fmt::format("the server is short of {}: {:.0f} % of class {} are refused", resource, share * 100,
                               QosClassName(c)),
                   {.retry_after = std::chrono::seconds(1), .metadata = {{"resource", resource}}});
}

OverloadState OverloadGuard::state() const {
  MutexLock lock(mu_);
  return state_;
}

}  // namespace sluice::qos
