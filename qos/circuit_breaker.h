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
// open (enough permitted calls finished, or max wait: open). Any state may be forced by an admin: metrics-only counts
// and never refuses, disabled does neither. Nothing runs in the background: open becomes half-open when the first
// TryAcquire after the wait asks for it.
enum class BreakerState { kClosed, kOpen, kHalfOpen, kDisabled, kForcedOpen, kMetricsOnly };
std::string_view BreakerStateName(BreakerState state);  // "closed", "open", "half_open", ...

struct BreakerOptions {
  double failure_rate_threshold = 0.5;                     // ratio 0..1
  double slow_call_rate_threshold = 1.0;                   // ratio 0..1
  Duration slow_call_duration = std::chrono::seconds(60);  // on TTFT, not on whole-call time
  int permitted_calls_in_half_open = 10;                   // also the window of half-open
  Duration max_wait_in_half_open = Duration::zero();       // zero: no limit
  int sliding_window_size = 100;                           // calls (count-based)
  int minimum_number_of_calls = 100;                       // before rates count; at most the window of the state
  Duration wait_in_open = std::chrono::seconds(60);
  BreakerState initial_state = BreakerState::kClosed;
};

enum class CallOutcome { kSuccess, kFailure, kIgnored };  // ignored: client faults, cancels; counts for nothing

// Thread-safety: thread-safe; a short internal lock.
class CircuitBreaker {
 public:
  // Requires: counts at least 1, thresholds above 0.
  CircuitBreaker(const BreakerOptions& options, const Clock& clock);

  // A right to make one call; report its outcome once. Dropping it unreported counts as ignored, so half-open
  // permits never leak. Move-only.
  class Call {
   public:
    Call(Call&& other) noexcept;
    Call& operator=(Call&& other) noexcept;
    ~Call();
    // `slow_measure`: slow when above slow_call_duration, whether or not the call succeeded.
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
  // Time until half-open would admit a probe; zero when calls are permitted. A guess while every probe is out
  // (at most 1 s) and when forced open (wait_in_open). For RetryInfo.
  Duration RetryAfter() const ABSL_LOCKS_EXCLUDED(mu_);
  // Starts a new period of `state` with an empty window (open keeps the window, to show why). Closed is a reset.
  void ForceState(BreakerState state) ABSL_LOCKS_EXCLUDED(mu_);

  struct Snapshot {
    BreakerState state = BreakerState::kClosed;
    int buffered_calls = 0, failed_calls = 0, slow_calls = 0;
    double failure_rate = -1, slow_call_rate = -1;  // -1: fewer calls than the minimum
    uint64_t not_permitted = 0;
  };
  Snapshot Take() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // The last calls of a state period: a ring with running totals.
  struct Window {
    struct Mark {
      bool failed = false, slow = false;
    };
    std::vector<Mark> marks;  // its size is the capacity
    size_t next = 0;
    int calls = 0, failed = 0, slow = 0;

    void Reset(int capacity);
    void Add(Mark mark);
  };

  void Report(uint64_t generation, CallOutcome outcome, Duration slow_measure) ABSL_LOCKS_EXCLUDED(mu_);
  void Enter(BreakerState state, MonoTime since) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // When half-open gives up waiting for its probes; kInfiniteFuture in other states.
  MonoTime HalfOpenEnd() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int EffectiveMinimum() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const BreakerOptions options_;
  const Clock& clock_;
  mutable Mutex mu_;  // protects all below; nothing else is locked or called under it but the clock
  BreakerState state_ ABSL_GUARDED_BY(mu_) = BreakerState::kClosed;
  MonoTime since_ ABSL_GUARDED_BY(mu_){};            // of the state period
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 0;     // number of the state period
  int permits_left_ ABSL_GUARDED_BY(mu_) = 0;        // of half-open
  uint64_t not_permitted_ ABSL_GUARDED_BY(mu_) = 0;  // ever
  Window window_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::qos
