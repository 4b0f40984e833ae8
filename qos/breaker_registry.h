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
// breaker named "other" serves). Get takes a lock and a map look-up: who asks for every request may keep the reference.
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
  // In order of names. Also brings the metrics up to date: call it before a scrape.
  std::vector<Entry> List() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
