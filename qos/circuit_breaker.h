// Stops calls to what keeps failing or is too slow, and tries again later with a few.
// States and defaults: resilience4j's CircuitBreaker. Differences: rates are ratios, not per cent; slowness is judged
// by what the caller measures (time to first token and the longest stall, not the length of a generation); each of the
// 36 forced transitions is allowed (resilience4j names 33); outcomes that arrive after a transition are dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "qos/count_ring.h"

namespace sluice::qos {

// The numbers are resilience4j's.
enum class BreakerState {
  kClosed = 0,
  kOpen = 1,
  kHalfOpen = 2,
  kDisabled = 3,     // permits everything, counts nothing
  kForcedOpen = 4,   // permits nothing until forced elsewhere
  kMetricsOnly = 5,  // counts, never opens: a dry run
};
std::string_view BreakerStateName(BreakerState state);  // "closed", "open", "half_open", ...
std::optional<BreakerState> ParseBreakerState(std::string_view name);

enum class WindowType { kCountBased, kTimeBased };

struct BreakerOptions {
  double failure_rate_threshold = 0.5;                            // ratio 0..1
  double slow_call_rate_threshold = 1.0;                          // ratio 0..1
  Duration slow_call_duration = std::chrono::seconds(60);         // on TTFT, not on whole-call time
  Duration slow_stall_duration = std::chrono::seconds(10);        // on the longest gap between two tokens
  int permitted_calls_in_half_open = 10;                          // also the window of half-open
  Duration max_wait_in_half_open = Duration::zero();              // for its probes; zero: no limit
  BreakerState state_after_half_open_wait = BreakerState::kOpen;  // or kClosed
  WindowType sliding_window_type = WindowType::kCountBased;
  int sliding_window_size = 100;      // calls, or seconds
  int minimum_number_of_calls = 100;  // before rates count; at most the window of the state, if that counts calls
  Duration wait_in_open = std::chrono::seconds(60);
  bool automatic_transition_to_half_open = false;  // when the wait is over, not with the first call after it
  BreakerState initial_state = BreakerState::kClosed;
};

enum class CallOutcome { kSuccess, kFailure, kIgnored };  // ignored: client faults, cancels; counts for nothing

// What the caller measured of one call.
struct CallTimes {
  Duration ttft = Duration::zero();
  Duration longest_stall = Duration::zero();  // between two tokens
};

enum class TransitionCause {
  kInitial,
  kFailureRate,    // the failure rate reached its threshold
  kSlowCallRate,   // the slow call rate reached its threshold
  kWaitOver,       // open for its time: now probes may try
  kProbesPassed,   // half-open, and the rates are below the thresholds
  kProbesTooSlow,  // half-open, and its probes did not come back in time
  kForced,
};
std::string_view TransitionCauseName(TransitionCause cause);  // "failure_rate", ..., "forced"

struct Transition {
  BreakerState from = BreakerState::kClosed, to = BreakerState::kClosed;
  TransitionCause cause = TransitionCause::kInitial;
  std::string who, why;  // of a forced one
  uint64_t number = 0;   // of the breaker, rising: listeners on several threads may be called out of order
  int calls = 0;         // in the window of the state that ended
  double failure_rate = -1, slow_call_rate = -1;  // of that window; -1: too few calls
};

// Thread-safety: thread-safe; a short internal lock. Time is monotonic: steps of the wall clock change nothing.
class CircuitBreaker {
 public:
  // Called after each transition, without a lock, by the thread whose call caused it.
  using Listener = std::function<void(const Transition&)>;

  // Requires: counts at least 1, thresholds above 0.
  CircuitBreaker(const BreakerOptions& options, const Clock& clock, Listener listener = nullptr);

  // A right to make one call; report its outcome once. Dropping it unreported counts as ignored, so half-open
  // permits never leak. Move-only.
  class Call {
   public:
    Call(Call&& other) noexcept;
    Call& operator=(Call&& other) noexcept;
    ~Call();
    // Slow when one of `times` is above its limit, whether or not the call succeeded.
    void Report(CallOutcome outcome, const CallTimes& times);
    void Report(CallOutcome outcome, Duration ttft) { Report(outcome, CallTimes{.ttft = ttft}); }

   private:
    friend class CircuitBreaker;
    Call(CircuitBreaker* breaker, uint64_t generation) : breaker_(breaker), generation_(generation) {}
    CircuitBreaker* breaker_;  // must outlive the call
    uint64_t generation_;      // state period it belongs to; late reports of an older period are dropped
  };

  // nullopt: not permitted now.
  std::optional<Call> TryAcquire() ABSL_LOCKS_EXCLUDED(mu_);

  // Makes transitions that are due by time alone, so that listeners hear of them without a call. Once a second will do.
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);

  BreakerState state() const ABSL_LOCKS_EXCLUDED(mu_);
  // Time until half-open would admit a probe; zero when calls are permitted. A guess while every probe is out
  // (at most 1 s) and when forced open (wait_in_open). For RetryInfo.
  Duration RetryAfter() const ABSL_LOCKS_EXCLUDED(mu_);

  struct Force {
    std::string who, why;                  // kept for Take and the listener
    Duration open_for = Duration::zero();  // of kOpen; zero: wait_in_open
  };
  // Starts a new period of `state` with an empty window (open keeps the window, to show why). Closed is a reset.
  void ForceState(BreakerState state, const Force& force) ABSL_LOCKS_EXCLUDED(mu_);
  void ForceState(BreakerState state) { ForceState(state, Force{}); }

  struct Snapshot {
    BreakerState state = BreakerState::kClosed;
    int buffered_calls = 0, failed_calls = 0, slow_calls = 0;
    double failure_rate = -1, slow_call_rate = -1;  // -1: fewer calls than the minimum
    uint64_t not_permitted = 0;                     // ever
    Duration in_state = Duration::zero();
    Transition last;  // the newest one that was made: one that time alone brings, Tick makes
  };
  Snapshot Take() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Counts {
    int calls = 0, failed = 0, slow = 0;
    Counts& operator+=(const Counts& o);
    Counts& operator-=(const Counts& o);
  };
  using Window = CountRing<Counts>;
  using Transitions = std::vector<Transition>;
  // Of one state; `cause`: why it began.
  struct Period {
    BreakerState state;
    MonoTime since;
    TransitionCause cause;
  };

  void Report(uint64_t generation, CallOutcome outcome, const CallTimes& times) ABSL_LOCKS_EXCLUDED(mu_);
  void Record(CallOutcome outcome, const CallTimes& times, MonoTime now, Transitions& made)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What follows the period by time alone; nullopt: it lasts. `wanted`: a call asks to be let in.
  std::optional<Period> Next(BreakerState state, MonoTime since, MonoTime now, bool wanted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CatchUp(MonoTime now, bool wanted, Transitions& made) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Where CatchUp would lead, for those who only look. `entered`: it is the present period.
  struct View {
    BreakerState state;
    MonoTime since;
    bool entered;
  };
  View At(MonoTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enter(const Period& next, const Force& force, Transitions& made) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tell(const Transitions& made) const;
  Window MakeWindow(BreakerState state) const;
  // -1, -1 below the minimum.
  std::pair<double, double> Rates() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const BreakerOptions options_;
  const Clock& clock_;
  const Listener listener_;
  mutable Mutex mu_;  // protects all below; nothing else is locked or called under it but the clock
  BreakerState state_ ABSL_GUARDED_BY(mu_) = BreakerState::kClosed;
  MonoTime since_ ABSL_GUARDED_BY(mu_){};            // of the state period
  Duration open_for_ ABSL_GUARDED_BY(mu_);           // of the open state
  int permits_left_ ABSL_GUARDED_BY(mu_) = 0;        // of half-open
  uint64_t not_permitted_ ABSL_GUARDED_BY(mu_) = 0;  // ever
  mutable Window window_ ABSL_GUARDED_BY(mu_);       // mutable: who looks forgets what is too old
  BreakerState filled_in_ ABSL_GUARDED_BY(mu_);      // the state whose calls are in it
  Transition last_ ABSL_GUARDED_BY(mu_);             // its number is that of the state period
};

}  // namespace sluice::qos
