// Turns pressure into refusals: judged a few times a second, asked by every request.
#pragma once

#include <array>
#include <atomic>

#include "absl/status/status.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "qos/overload.h"

namespace sluice::qos {

// Thread-safety: thread-safe; Admit takes no lock.
class OverloadGuard {
 public:
  // Metrics: sluice_overload_pressure{resource} (-1: not known), sluice_overload_shed_share{class},
  // sluice_overload_shrink (0..1), sluice_overload_refusals_total{class}.
  OverloadGuard(const OverloadOptions& options, MetricsRegistry& metrics);

  // The newest readings; call it a few times a second.
  OverloadState Update(const Pressure& pressure) ABSL_LOCKS_EXCLUDED(mu_);

  // OVERLOADED (UNAVAILABLE, retry_after 1 s, metadata `resource`) for the share of the class that is to be shed.
  // `draw`: in [0, 1), evenly spread over requests, e.g. from a hash of the request id.
  absl::Status Admit(QosClass c, double draw) const;

  OverloadState state() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const OverloadOptions options_;
  std::array<Gauge*, kResourceCount> pressure_;
  std::array<Gauge*, kQosClassCount> shares_;
  std::array<Counter*, kQosClassCount> refusals_;
  Gauge& shrink_;
  // Atomic: written by Update, read by every request. That two of them may be of different readings does no harm.
  std::array<std::atomic<double>, kQosClassCount> share_{};
  std::atomic<Resource> cause_{Resource::kMemory};
  mutable Mutex mu_;
  OverloadState state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::qos
