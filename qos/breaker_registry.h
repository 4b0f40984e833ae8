// One circuit breaker per (model, pipeline), made on first use.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "qos/circuit_breaker.h"

namespace sluice::qos {

// Thread-safety: thread-safe. Breakers live as long as the registry; at most `max_breakers` (beyond it, one shared
// breaker named "other" serves).
class BreakerRegistry {
 public:
  // Metrics: sluice_qos_breaker_state{model,pipeline,state} (1 for the current state),
  // sluice_qos_breaker_not_permitted_total{model,pipeline}.
  BreakerRegistry(const BreakerOptions& options, const Clock& clock, MetricsRegistry& metrics,
                  size_t max_breakers = 256);
  ~BreakerRegistry();

  CircuitBreaker& Get(std::string_view model, std::string_view pipeline);

  struct Entry {
    std::string model, pipeline;
    CircuitBreaker::Snapshot snapshot;
  };
  std::vector<Entry> List() const;  // also refreshes the state gauges

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
