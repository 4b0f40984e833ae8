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

CircuitBreaker::Call::Call(Call&& other) noexcept
    : breaker_(std::exchange(other.breaker_, nullptr)), generation_(other.generation_) {}

CircuitBreaker::Call& CircuitBreaker::Call::operator=(Call&& other) noexcept {
  if (this != &other) {
    Report(CallOutcome::kIgnored, Duration::zero());
    breaker_ = std::exchange(other.breaker_, nullptr);
    generation_ = other.generation_;
  }
  return *this;
}

CircuitBreaker::Call::~Call() { Report(CallOutcome::kIgnored, Duration::zero()); }

void CircuitBreaker::Call::Report(CallOutcome outcome, Duration slow_measure) {
  if (CircuitBreaker* breaker = std::exchange(breaker_, nullptr)) breaker->Report(generation_, outcome, slow_measure);
}

void CircuitBreaker::Window::Reset(int capacity) {
  marks.assign(static_cast<size_t>(capacity), Mark{});
  next = 0;
  calls = failed = slow = 0;
}

void CircuitBreaker::Window::Add(Mark mark) {
  Mark& place = marks[next];  // an unused place carries no marks
  failed += mark.failed - place.failed;
  slow += mark.slow - place.slow;
  place = mark;
  next = (next + 1) % marks.size();
  calls = std::min(calls + 1, static_cast<int>(marks.size()));
}

CircuitBreaker::CircuitBreaker(const BreakerOptions& options, const Clock& clock) : options_(options), clock_(clock) {
  SLUICE_CHECK(options.sliding_window_size >= 1 && options.permitted_calls_in_half_open >= 1 &&
                   options.minimum_number_of_calls >= 1,
               "counts of a circuit breaker are at least 1");
  SLUICE_CHECK(options.failure_rate_threshold > 0 && options.slow_call_rate_threshold > 0,
               "thresholds of a circuit breaker are above 0");
  MutexLock lock(mu_);
  window_.Reset(options.sliding_window_size);
  Enter(options.initial_state, clock.Now());
}

void CircuitBreaker::Enter(BreakerState state, MonoTime since) {
  state_ = state;
  since_ = since;
  ++generation_;
  const bool half_open = state == BreakerState::kHalfOpen;
  permits_left_ = half_open ? options_.permitted_calls_in_half_open : 0;
  if (state == BreakerState::kOpen) return;  // keeps the window that shows why it opened
  window_.Reset(half_open ? options_.permitted_calls_in_half_open : options_.sliding_window_size);
}

MonoTime CircuitBreaker::HalfOpenEnd() const {
  const bool limited = state_ == BreakerState::kHalfOpen && options_.max_wait_in_half_open > Duration::zero();
  return limited ? SaturatingAdd(since_, options_.max_wait_in_half_open) : kInfiniteFuture;
}

int CircuitBreaker::EffectiveMinimum() const {
  return std::min(options_.minimum_number_of_calls, static_cast<int>(window_.marks.size()));
}

std::optional<CircuitBreaker::Call> CircuitBreaker::TryAcquire() {
  MutexLock lock(mu_);
  const MonoTime now = clock_.Now();
  if (const MonoTime end = HalfOpenEnd(); now >= end) Enter(BreakerState::kOpen, end);
  if (state_ == BreakerState::kOpen && now >= SaturatingAdd(since_, options_.wait_in_open)) {
    Enter(BreakerState::kHalfOpen, now);
  }
  const bool probes_are_out = state_ == BreakerState::kHalfOpen && permits_left_ == 0;
  if (state_ == BreakerState::kOpen || state_ == BreakerState::kForcedOpen || probes_are_out) {
    ++not_permitted_;
    return std::nullopt;
  }
  if (state_ == BreakerState::kHalfOpen) --permits_left_;
  return Call(this, generation_);
}

void CircuitBreaker::Report(uint64_t generation, CallOutcome outcome, Duration slow_measure) {
  MutexLock lock(mu_);
  const MonoTime now = clock_.Now();
  if (const MonoTime end = HalfOpenEnd(); now >= end) Enter(BreakerState::kOpen, end);
  if (generation != generation_ || state_ == BreakerState::kDisabled) return;
  if (outcome == CallOutcome::kIgnored) {
    if (state_ == BreakerState::kHalfOpen) ++permits_left_;
    return;
  }
  window_.Add({.failed = outcome == CallOutcome::kFailure, .slow = slow_measure > options_.slow_call_duration});
  if (state_ == BreakerState::kMetricsOnly || window_.calls < EffectiveMinimum()) return;
  if (Rate(window_.failed, window_.calls) >= options_.failure_rate_threshold ||
      Rate(window_.slow, window_.calls) >= options_.slow_call_rate_threshold) {
    Enter(BreakerState::kOpen, now);
  } else if (state_ == BreakerState::kHalfOpen) {
    Enter(BreakerState::kClosed, now);
  }
}

BreakerState CircuitBreaker::state() const {
  MutexLock lock(mu_);
  return clock_.Now() >= HalfOpenEnd() ? BreakerState::kOpen : state_;
}

Duration CircuitBreaker::RetryAfter() const {
  MutexLock lock(mu_);
  const MonoTime now = clock_.Now(), end = HalfOpenEnd();
  if (state_ == BreakerState::kForcedOpen) return options_.wait_in_open;
  if (state_ == BreakerState::kOpen || now >= end) {
    const MonoTime opened = state_ == BreakerState::kOpen ? since_ : end;
    return std::max(Duration::zero(), SaturatingAdd(opened, options_.wait_in_open) - now);
  }
  const bool probes_are_out = state_ == BreakerState::kHalfOpen && permits_left_ == 0;
  return probes_are_out ? std::min(kProbeGuess, options_.wait_in_open) : Duration::zero();
}

void CircuitBreaker::ForceState(BreakerState state) {
  MutexLock lock(mu_);
  Enter(state, clock_.Now());
}

CircuitBreaker::Snapshot CircuitBreaker::Take() const {
  MutexLock lock(mu_);
  Snapshot out{.state = clock_.Now() >= HalfOpenEnd() ? BreakerState::kOpen : state_,
               .buffered_calls = window_.calls,
               .failed_calls = window_.failed,
               .slow_calls = window_.slow,
               .not_permitted = not_permitted_};
  if (window_.calls >= EffectiveMinimum()) {
    out.failure_rate = Rate(window_.failed, window_.calls);
    out.slow_call_rate = Rate(window_.slow, window_.calls);
  }
  return out;
}

}  // namespace sluice::qos
