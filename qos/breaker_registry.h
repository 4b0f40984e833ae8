// One circuit breaker per (model, pipeline), made on first use.
#pragma once

#include <functional>
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
  // Called after each transition of any breaker, without a lock, by the thread whose call caused it.
  using Listener = std::function<void(std::string_view model, std::string_view pipeline, const Transition&)>;

  // Metrics: sluice_qos_breaker_state{model,pipeline,state} (1 for the current state),
  // sluice_qos_breaker_not_permitted_total{model,pipeline}, sluice_qos_breaker_{failure,slow_call}_rate{model,pipeline}
  // (-1: too few calls), sluice_qos_breaker_transitions_total{model,pipeline,to,cause}.
  BreakerRegistry(const BreakerOptions& options, const Clock& clock, MetricsRegistry& metrics,
                  size_t max_breakers = 256, Listener listener = nullptr);
  ~BreakerRegistry();

  CircuitBreaker& Get(std::string_view model, std::string_view pipeline);

  // Makes the transitions that are due by time alone: call it about once a second.
  void Tick();

  // Forces every breaker of `model` (empty: of all models) and `pipeline` (empty: of all); returns how many. One that
  // no request has asked for yet does not exist and is not forced.
  int Force(std::string_view model, std::string_view pipeline, BreakerState state, const CircuitBreaker::Force& force);

  struct Entry {
    std::string model, pipeline;
    CircuitBreaker::Snapshot snapshot;
  };
  // In order of names. Also brings the metrics up to date: call it before a scrape.
  std::vector<Entry> List() const;

 private:
  struct Impl;
  std::vector<CircuitBreaker*> Matching(std::string_view model, std::string_view pipeline) const;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
