// A circuit breaker with resilience4j's states, names and defaults. Closed: traffic flows. Open: all refused until
// the wait passes. Half-open: a bounded number of probes decides.
// Source: resilience4j CircuitBreaker / CircuitBreakerConfig (anchors/qos_reliability.md §2.2).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"

namespace sluice::qos {

// Transitions: closed → open (failure or slow rate reached); open → half-open (wait passed); half-open → closed or
// open (permitted calls finished, or max wait). Any state may be forced by an admin.
enum class BreakerState { kClosed, kOpen, kHalfOpen, kDisabled, kForcedOpen, kMetricsOnly };
std::string_view BreakerStateName(BreakerState state);  // "closed", "open", "half_open", ...

struct BreakerOptions {
  double failure_rate_threshold = 0.5;    // ratio 0..1
  double slow_call_rate_threshold = 1.0;  // ratio 0..1
  Duration slow_call_duration = std::chrono::seconds(60);  // on TTFT, not on whole-call time
  int permitted_calls_in_half_open = 10;
  Duration max_wait_in_half_open = Duration::zero();  // zero: no limit
  int sliding_window_size = 100;                      // calls (count-based)
  int minimum_number_of_calls = 100;
  Duration wait_in_open = std::chrono::seconds(60);
  BreakerState initial_state = BreakerState::kClosed;
};

enum class CallOutcome { kSuccess, kFailure, kIgnored };  // ignored: client faults, cancels; counts for nothing

// Thread-safety: thread-safe; a short internal lock.
class CircuitBreaker {
 public:
  CircuitBreaker(const BreakerOptions& options, const Clock& clock);

  // A right to make one call; report its outcome once. Dropping it unreported counts as ignored, so half-open
  // permits never leak. Move-only.
  class Call {
   public:
    Call(Call&& other) noexcept;
    Call& operator=(Call&& other) noexcept;
    ~Call();
    void Report(CallOutcome outcome, Duration slow_measure);

   private:
    friend class CircuitBreaker;
    Call(CircuitBreaker* breaker, uint64_t generation) : breaker_(breaker), generation_(generation) {}
    CircuitBreaker* breaker_;  // must outlive the call
    uint64_t generation_;      // state period it belongs to; late reports of an older period are dropped
  };

  // nullopt: not permitted now.
  std::optional<Call> TryAcquire() ABSL_LOCKS_EXCLUDED(mu_);

  BreakerState state() const ABSL_LOCKS_EXCLUDED(mu_);
  // Time until half-open would admit a probe; zero when calls are permitted. For RetryInfo.
  Duration RetryAfter() const ABSL_LOCKS_EXCLUDED(mu_);
  void ForceState(BreakerState state) ABSL_LOCKS_EXCLUDED(mu_);

  struct Snapshot {
    BreakerState state = BreakerState::kClosed;
    int buffered_calls = 0, failed_calls = 0, slow_calls = 0;
    double failure_rate = -1, slow_call_rate = -1;  // -1: fewer calls than the minimum
    uint64_t not_permitted = 0;
  };
  Snapshot Take() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Report(uint64_t generation, CallOutcome outcome, Duration slow_measure) ABSL_LOCKS_EXCLUDED(mu_);
  void Enter(BreakerState state, MonoTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AdvanceByTime(MonoTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const BreakerOptions options_;
  const Clock& clock_;
  mutable Mutex mu_;
  struct Window;
  // ... the implementer fills in the guarded state
};

}  // namespace sluice::qos
