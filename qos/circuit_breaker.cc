#include "qos/circuit_breaker.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sluice::qos {
namespace {

constexpr Duration kProbeGuess = std::chrono::seconds(1);  // until one of the probes that are out comes back

double Rate(int part, int calls) { return static_cast<double>(part) / calls; }

}  // namespace

std::string_view BreakerStateName(BreakerState state) {
  switch (state) {
    case BreakerState::kClosed:
      return "closed";
    case BreakerState::kOpen:
      return "open";
    case BreakerState::kHalfOpen:
      return "half_open";
    case BreakerState::kDisabled:
      return "disabled";
    case BreakerState::kForcedOpen:
      return "forced_open";
    case BreakerState::kMetricsOnly:
      return "metrics_only";
  }
  SLUICE_CHECK(false, "a BreakerState outside its enum");
}

std::optional<BreakerState> ParseBreakerState(std::string_view name) {
  for (const BreakerState state : {BreakerState::kClosed, BreakerState::kOpen, BreakerState::kHalfOpen,
                                   BreakerState::kDisabled, BreakerState::kForcedOpen, BreakerState::kMetricsOnly}) {
    if (name == BreakerStateName(state)) return state;
  }
  return std::nullopt;
}

std::string_view TransitionCauseName(TransitionCause cause) {
  switch (cause) {
    case TransitionCause::kInitial:
      return "initial";
    case TransitionCause::kFailureRate:
      return "failure_rate";
    case TransitionCause::kSlowCallRate:
      return "slow_call_rate";
    case TransitionCause::kWaitOver:
      return "wait_over";
    case TransitionCause::kProbesPassed:
      return "probes_passed";
    case TransitionCause::kProbesTooSlow:
      return "probes_too_slow";
    case TransitionCause::kForced:
      return "forced";
  }
  SLUICE_CHECK(false, "a TransitionCause outside its enum");
}

CircuitBreaker::Call::Call(Call&& other) noexcept
    : breaker_(std::exchange(other.breaker_, nullptr)), generation_(other.generation_) {}

CircuitBreaker::Call& CircuitBreaker::Call::operator=(Call&& other) noexcept {
  if (this != &other) {
    Report(CallOutcome::kIgnored, CallTimes{});
    breaker_ = std::exchange(other.breaker_, nullptr);
    generation_ = other.generation_;
  }
  return *this;
}

CircuitBreaker::Call::~Call() { Report(CallOutcome::kIgnored, CallTimes{}); }

void CircuitBreaker::Call::Report(CallOutcome outcome, const CallTimes& times) {
  if (CircuitBreaker* breaker = std::exchange(breaker_, nullptr)) breaker->Report(generation_, outcome, times);
}

CircuitBreaker::Counts& CircuitBreaker::Counts::operator+=(const Counts& o) {
  calls += o.calls;
  failed += o.failed;
  slow += o.slow;
  return *this;
}

CircuitBreaker::Counts& CircuitBreaker::Counts::operator-=(const Counts& o) {
  calls -= o.calls;
  failed -= o.failed;
  slow -= o.slow;
  return *this;
}

CircuitBreaker::CircuitBreaker(const BreakerOptions& options, const Clock& clock, Listener listener)
    : options_(options),
      clock_(clock),
      listener_(std::move(listener)),
      open_for_(options.wait_in_open),
      window_(Window::Unit::kCalls, 1),
      filled_in_(options.initial_state) {
  SLUICE_CHECK(options.sliding_window_size >= 1 && options.permitted_calls_in_half_open >= 1 &&
                   options.minimum_number_of_calls >= 1,
               "counts of a circuit breaker are at least 1");
  SLUICE_CHECK(options.failure_rate_threshold > 0 && options.slow_call_rate_threshold > 0,
               "thresholds of a circuit breaker are above 0");
  SLUICE_CHECK(options.state_after_half_open_wait == BreakerState::kOpen ||
                   options.state_after_half_open_wait == BreakerState::kClosed,
               "half-open ends as open or closed");
  MutexLock lock(mu_);
  window_ = MakeWindow(BreakerState::kClosed);
  state_ = options.initial_state;
  Transitions made;
  Enter({options.initial_state, clock.Now(), TransitionCause::kInitial}, {}, made);
}

CircuitBreaker::Window CircuitBreaker::MakeWindow(BreakerState state) const {
  if (state == BreakerState::kHalfOpen) return Window(Window::Unit::kCalls, options_.permitted_calls_in_half_open);
  const bool timed = options_.sliding_window_type == WindowType::kTimeBased;
  return Window(timed ? Window::Unit::kSeconds : Window::Unit::kCalls, options_.sliding_window_size);
}

void CircuitBreaker::Enter(const Period& next, const Force& force, Transitions& made) {
  if (state_ != BreakerState::kOpen) window_.Advance(next.since);
  const auto [failure_rate, slow_rate] = Rates();
  last_ = {.from = state_,
           .to = next.state,
           .cause = next.cause,
           .who = force.who,
           .why = force.why,
           .number = last_.number + 1,
           .calls = window_.total().calls,
           .failure_rate = failure_rate,
           .slow_call_rate = slow_rate};
  if (listener_ && next.cause != TransitionCause::kInitial) made.push_back(last_);
  state_ = next.state;
  since_ = next.since;
  permits_left_ = state_ == BreakerState::kHalfOpen ? options_.permitted_calls_in_half_open : 0;
  open_for_ = force.open_for > Duration::zero() ? force.open_for : options_.wait_in_open;
  if (state_ == BreakerState::kOpen) return;  // keeps the window that shows why it opened
  window_ = MakeWindow(state_);
  filled_in_ = state_;
}

std::optional<CircuitBreaker::Period> CircuitBreaker::Next(BreakerState state, MonoTime since, MonoTime now,
                                                           bool wanted) const {
  if (state == BreakerState::kHalfOpen && options_.max_wait_in_half_open > Duration::zero()) {
    const MonoTime end = SaturatingAdd(since, options_.max_wait_in_half_open);
    if (now >= end) return Period{options_.state_after_half_open_wait, end, TransitionCause::kProbesTooSlow};
  }
  if (state == BreakerState::kOpen && (wanted || options_.automatic_transition_to_half_open)) {
    // An open period that half-open gave way to has the usual length.
    const Duration length = state_ == BreakerState::kOpen ? open_for_ : options_.wait_in_open;
    if (now >= SaturatingAdd(since, length)) return Period{BreakerState::kHalfOpen, now, TransitionCause::kWaitOver};
  }
  return std::nullopt;
}

void CircuitBreaker::CatchUp(MonoTime now, bool wanted, Transitions& made) {
  while (const auto next = Next(state_, since_, now, wanted)) Enter(*next, {}, made);
}

CircuitBreaker::View CircuitBreaker::At(MonoTime now) const {
  View view{.state = state_, .since = since_, .entered = true};
  while (const auto next = Next(view.state, view.since, now, /*wanted=*/false)) {
    view = {.state = next->state, .since = next->since, .entered = false};
  }
  return view;
}

void CircuitBreaker::Tell(const Transitions& made) const {
  for (const Transition& transition : made) listener_(transition);
}

std::optional<CircuitBreaker::Call> CircuitBreaker::TryAcquire() {
  Transitions made;
  std::optional<Call> call;
  {
    MutexLock lock(mu_);
    CatchUp(clock_.Now(), /*wanted=*/true, made);
    const bool probes_are_out = state_ == BreakerState::kHalfOpen && permits_left_ == 0;
    if (state_ == BreakerState::kOpen || state_ == BreakerState::kForcedOpen || probes_are_out) {
      ++not_permitted_;
    } else {
      if (state_ == BreakerState::kHalfOpen) --permits_left_;
      call = Call(this, last_.number);
    }
  }
  Tell(made);
  return call;
}

void CircuitBreaker::Tick() {
  Transitions made;
  {
    MutexLock lock(mu_);
    CatchUp(clock_.Now(), /*wanted=*/false, made);
  }
  Tell(made);
}

void CircuitBreaker::Report(uint64_t generation, CallOutcome outcome, const CallTimes& times) {
  Transitions made;
  {
    MutexLock lock(mu_);
    const MonoTime now = clock_.Now();
    CatchUp(now, /*wanted=*/false, made);
    if (generation == last_.number && state_ != BreakerState::kDisabled) Record(outcome, times, now, made);
  }
  Tell(made);
}

void CircuitBreaker::Record(CallOutcome outcome, const CallTimes& times, MonoTime now, Transitions& made) {
  if (outcome == CallOutcome::kIgnored) {
    if (state_ == BreakerState::kHalfOpen) ++permits_left_;
    return;
  }
  const bool slow = times.ttft > options_.slow_call_duration || times.longest_stall > options_.slow_stall_duration;
  window_.Add({.calls = 1, .failed = outcome == CallOutcome::kFailure, .slow = slow}, now);
  const auto [failure_rate, slow_rate] = Rates();
  if (state_ == BreakerState::kMetricsOnly || failure_rate < 0) return;
  if (failure_rate >= options_.failure_rate_threshold) {
    Enter({BreakerState::kOpen, now, TransitionCause::kFailureRate}, {}, made);
  } else if (slow_rate >= options_.slow_call_rate_threshold) {
    Enter({BreakerState::kOpen, now, TransitionCause::kSlowCallRate}, {}, made);
  } else if (state_ == BreakerState::kHalfOpen) {
    Enter({BreakerState::kClosed, now, TransitionCause::kProbesPassed}, {}, made);
  }
}

std::pair<double, double> CircuitBreaker::Rates() const {
  const Counts& total = window_.total();
  int minimum = options_.minimum_number_of_calls;
  if (filled_in_ == BreakerState::kHalfOpen || options_.sliding_window_type == WindowType::kCountBased) {
    minimum = std::min(minimum, window_.size());
  }
  if (total.calls < minimum) return {-1, -1};
  return {Rate(total.failed, total.calls), Rate(total.slow, total.calls)};
}

BreakerState CircuitBreaker::state() const {
  MutexLock lock(mu_);
  return At(clock_.Now()).state;
}

Duration CircuitBreaker::RetryAfter() const {
  MutexLock lock(mu_);
  const MonoTime now = clock_.Now();
  const auto [state, since, entered] = At(now);
  if (state == BreakerState::kForcedOpen) return options_.wait_in_open;
  if (state == BreakerState::kOpen) {
    const Duration length = state_ == BreakerState::kOpen ? open_for_ : options_.wait_in_open;
    return std::max(Duration::zero(), SaturatingAdd(since, length) - now);
  }
  const bool probes_are_out = state == BreakerState::kHalfOpen && entered && permits_left_ == 0;
  return probes_are_out ? std::min(kProbeGuess, options_.wait_in_open) : Duration::zero();
}

void CircuitBreaker::ForceState(BreakerState state, const Force& force) {
  Transitions made;
  {
    MutexLock lock(mu_);
    const MonoTime now = clock_.Now();
    CatchUp(now, /*wanted=*/false, made);
    Enter({state, now, TransitionCause::kForced}, force, made);
  }
  Tell(made);
}

CircuitBreaker::Snapshot CircuitBreaker::Take() const {
  MutexLock lock(mu_);
  const MonoTime now = clock_.Now();
  const auto [state, since, entered] = At(now);
  if (state_ != BreakerState::kOpen) window_.Advance(now);  // an open breaker goes on showing why it opened
  // A period that began by time alone, and that nobody has entered yet, has no calls so far.
  const bool fresh = !entered && state != BreakerState::kOpen;
  const Counts calls = fresh ? Counts{} : window_.total();
  const auto [failure_rate, slow_rate] = fresh ? std::pair(-1.0, -1.0) : Rates();
  return {.state = state,
          .buffered_calls = calls.calls,
          .failed_calls = calls.failed,
          .slow_calls = calls.slow,
          .failure_rate = failure_rate,
          .slow_call_rate = slow_rate,
          .not_permitted = not_permitted_,
          .in_state = now - since,
          .last = last_};
}

}  // namespace sluice::qos
