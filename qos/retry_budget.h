// Keeps retries from turning an overload into a collapse: when too large a share of the recent calls are retries,
// further retries are refused, and told not to come again.
// Source: Envoy's RetryBudget (budget_percent, min_retry_concurrency) and Finagle's (a time window), applied by the
// server to what clients say about themselves: gRPC sends `grpc-previous-rpc-attempts` with every retry (gRFC A6).
#pragma once

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "qos/count_ring.h"

namespace sluice::qos {

struct RetryBudgetOptions {
  bool enabled = true;
  double budget_ratio = 0.2;       // retries among all calls that were let in, 0..1
  int min_retries_per_second = 3;  // always allowed, so that a quiet server can be retried
  int window_seconds = 10;
};

// Thread-safety: thread-safe; a short internal lock.
class RetryBudget {
 public:
  // Metrics: sluice_qos_retries_total{outcome}: "admitted", or "RETRY_BUDGET".
  // Requires: a window of at least 1 s.
  RetryBudget(const RetryBudgetOptions& options, const Clock& clock, MetricsRegistry& metrics)
      : RetryBudget(
            options, clock,
            metrics.AddCounter("sluice_qos_retries_total", "Calls that a client had tried before", {"outcome"})) {}

  // A call arrives that the client has tried `previous_attempts` times before; 0: none. RETRY_BUDGET without
  // retry_after ("do not retry") for a retry above the budget. Refused retries do not count: they cost nothing.
  absl::Status Admit(int previous_attempts) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  RetryBudget(const RetryBudgetOptions& options, const Clock& clock, Family<Counter>& retries);
  struct Counts {
    int64_t calls = 0, retries = 0;  // calls: retries included
    Counts& operator+=(const Counts& o);
    Counts& operator-=(const Counts& o);
  };

  const RetryBudgetOptions options_;
  const Clock& clock_;
  Counter &admitted_, &refused_;
  Mutex mu_;
  CountRing<Counts> window_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::qos
