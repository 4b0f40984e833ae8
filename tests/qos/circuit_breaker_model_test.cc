// The breaker against the same rules written again as plainly as possible, over random histories; and each forced
// transition between its states.
#include <algorithm>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "qos/circuit_breaker.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Step = std::tuple<BreakerState, BreakerState, TransitionCause>;

// Keeps the whole history of a period and recounts it at each step.
class Model {
 public:
  Model(const BreakerOptions& options, MonoTime now) : options_(options), now_(now) {
    state_ = options.initial_state;
    Go(options.initial_state, now, TransitionCause::kInitial);
    steps.clear();
  }

  void SetNow(MonoTime now) { now_ = now; }

  std::optional<int> Acquire() {
    TimePasses();
    if (state_ == BreakerState::kOpen && now_ - since_ >= open_for_) {
      Go(BreakerState::kHalfOpen, now_, TransitionCause::kWaitOver);
    }
    bool yes = true;
    if (state_ == BreakerState::kOpen || state_ == BreakerState::kForcedOpen) yes = false;
    if (state_ == BreakerState::kHalfOpen) {
      yes = probing_ + static_cast<int>(history_.size()) < options_.permitted_calls_in_half_open;
    }
    if (!yes) {
      ++refused_;
      return std::nullopt;
    }
    ++probing_;
    return period_;
  }

  void Report(int period, CallOutcome outcome, const CallTimes& times) {
    TimePasses();
    if (period != period_) return;
    --probing_;
    if (outcome == CallOutcome::kIgnored || state_ == BreakerState::kDisabled) return;
    const bool slow = times.ttft > options_.slow_call_duration || times.longest_stall > options_.slow_stall_duration;
    history_.push_back({now_, outcome == CallOutcome::kFailure, slow});
    if (state_ == BreakerState::kMetricsOnly || !RatesKnown()) return;
    if (FailureRate() >= options_.failure_rate_threshold) {
      Go(BreakerState::kOpen, now_, TransitionCause::kFailureRate);
    } else if (SlowRate() >= options_.slow_call_rate_threshold) {
      Go(BreakerState::kOpen, now_, TransitionCause::kSlowCallRate);
    } else if (state_ == BreakerState::kHalfOpen) {
      Go(BreakerState::kClosed, now_, TransitionCause::kProbesPassed);
    }
  }

  void Force(BreakerState state, Duration open_for) {
    TimePasses();
    Go(state, now_, TransitionCause::kForced);
    if (open_for > Duration::zero()) open_for_ = open_for;
  }

  // What a look shows, which makes the transitions that are due by time: later ones than the breaker's own.
  CircuitBreaker::Snapshot Take() {
    TimePasses();
    CircuitBreaker::Snapshot out{.state = state_, .buffered_calls = static_cast<int>(Window().size())};
    for (const Past& past : Window()) {
      out.failed_calls += past.failed;
      out.slow_calls += past.slow;
    }
    out.failure_rate = RatesKnown() ? FailureRate() : -1;
    out.slow_call_rate = RatesKnown() ? SlowRate() : -1;
    out.not_permitted = refused_;
    out.in_state = now_ - since_;
    return out;
  }

  std::vector<Step> steps;

 private:
  struct Past {
    MonoTime at;
    bool failed, slow;
  };

  void TimePasses() {
    if (state_ == BreakerState::kHalfOpen && options_.max_wait_in_half_open > Duration::zero() &&
        now_ - since_ >= options_.max_wait_in_half_open) {
      Go(options_.state_after_half_open_wait, since_ + options_.max_wait_in_half_open, TransitionCause::kProbesTooSlow);
    }
    if (options_.automatic_transition_to_half_open && state_ == BreakerState::kOpen && now_ - since_ >= open_for_) {
      Go(BreakerState::kHalfOpen, now_, TransitionCause::kWaitOver);
    }
  }
  void Go(BreakerState state, MonoTime since, TransitionCause cause) {
    steps.emplace_back(state_, state, cause);
    if (state_ != BreakerState::kOpen) left_at_ = since;
    state_ = state;
    since_ = since;
    open_for_ = options_.wait_in_open;
    ++period_;
    probing_ = 0;
    if (state == BreakerState::kOpen) return;  // history stays, to show why
    history_.clear();
    counts_probes_ = state == BreakerState::kHalfOpen;
  }
  bool ByTime() const { return options_.sliding_window_type == WindowType::kTimeBased && !counts_probes_; }
  int Capacity() const { return counts_probes_ ? options_.permitted_calls_in_half_open : options_.sliding_window_size; }
  std::vector<Past> Window() const {
    std::vector<Past> out = history_;
    if (ByTime()) {
      const auto second = [](MonoTime t) { return std::chrono::floor<seconds>(t.time_since_epoch()); };
      const MonoTime until = state_ == BreakerState::kOpen ? left_at_ : now_;
      std::erase_if(out, [&](const Past& p) { return second(until) - second(p.at) >= seconds(Capacity()); });
    } else if (static_cast<int>(out.size()) > Capacity()) {
      out.erase(out.begin(), out.end() - Capacity());
    }
    return out;
  }
  bool RatesKnown() const {
    const int n = static_cast<int>(Window().size());
    return n >= options_.minimum_number_of_calls || (!ByTime() && n >= Capacity());
  }
  double FailureRate() const {
    const auto window = Window();
    const auto n = std::count_if(window.begin(), window.end(), [](const Past& p) { return p.failed; });
    return static_cast<double>(n) / static_cast<double>(window.size());
  }
  double SlowRate() const {
    const auto window = Window();
    const auto n = std::count_if(window.begin(), window.end(), [](const Past& p) { return p.slow; });
    return static_cast<double>(n) / static_cast<double>(window.size());
  }

  const BreakerOptions options_;
  MonoTime now_;
  BreakerState state_ = BreakerState::kClosed;
  MonoTime since_{}, left_at_{};
  Duration open_for_{};
  int period_ = 0, probing_ = 0;
  bool counts_probes_ = false;
  uint64_t refused_ = 0;
  std::vector<Past> history_;
};

BreakerOptions RandomOptions(std::mt19937& random) {
  const auto between = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  return {.failure_rate_threshold = between(1, 10) / 10.0,
          .slow_call_rate_threshold = between(1, 10) / 10.0,
          .slow_call_duration = seconds(2),
          .slow_stall_duration = seconds(1),
          .permitted_calls_in_half_open = between(1, 5),
          .max_wait_in_half_open = seconds(between(0, 1) * between(1, 20)),
          .state_after_half_open_wait = static_cast<BreakerState>(between(0, 1)),
          .sliding_window_type = static_cast<WindowType>(between(0, 1)),
          .sliding_window_size = between(1, 12),
          .minimum_number_of_calls = between(1, 15),
          .wait_in_open = seconds(between(0, 15)),
          .automatic_transition_to_half_open = between(0, 1) == 1,
          .initial_state = static_cast<BreakerState>(between(0, 5))};
}

// The wall clock of a machine whose administrator cannot decide; the monotonic one goes on.
class JumpingWallClock final : public Clock {
 public:
  explicit JumpingWallClock(const test::ManualClock& clock) : clock_(clock) {}
  MonoTime Now() const override { return clock_.Now(); }
  WallTime WallNow() const override {
    jump_ = -jump_ * 2;
    return clock_.WallNow() + jump_;
  }

 private:
  const test::ManualClock& clock_;
  mutable Duration jump_ = std::chrono::hours(24);
};

void ExpectSame(const CircuitBreaker::Snapshot& got, const CircuitBreaker::Snapshot& want, int step) {
  ASSERT_EQ(got.state, want.state) << "step " << step;
  ASSERT_EQ(got.buffered_calls, want.buffered_calls) << "step " << step << " " << BreakerStateName(got.state);
  ASSERT_EQ(got.failed_calls, want.failed_calls) << "step " << step;
  ASSERT_EQ(got.slow_calls, want.slow_calls) << "step " << step;
  ASSERT_DOUBLE_EQ(got.failure_rate, want.failure_rate) << "step " << step;
  ASSERT_DOUBLE_EQ(got.slow_call_rate, want.slow_call_rate) << "step " << step;
  ASSERT_EQ(got.not_permitted, want.not_permitted) << "step " << step;
  ASSERT_EQ(got.in_state, want.in_state) << "step " << step;
}

void CompareWithModel(uint32_t seed, std::set<Step>* seen) {
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  const auto chance = [&](int percent) { return static_cast<int>(random() % 100) < percent; };
  test::ManualClock manual;
  const JumpingWallClock clock(manual);
  const BreakerOptions options = RandomOptions(random);
  std::vector<Step> steps;
  CircuitBreaker breaker(options, clock, [&](const Transition& t) { steps.emplace_back(t.from, t.to, t.cause); });
  Model model(options, clock.Now());
  struct Pending {
    CircuitBreaker::Call call;
    int period;
  };
  std::vector<Pending> pending;
  for (int step = 0; step < 400; ++step) {
    model.SetNow(clock.Now());
    if (chance(45)) {
      auto call = breaker.TryAcquire();
      const auto period = model.Acquire();
      ASSERT_EQ(call.has_value(), period.has_value()) << "step " << step;
      if (call) pending.push_back({std::move(*call), *period});
    } else if (!pending.empty() && chance(75)) {
      std::swap(pending[random() % pending.size()], pending.back());
      const auto outcome = static_cast<CallOutcome>(random() % 3);
      const CallTimes times{.ttft = seconds(random() % 4), .longest_stall = milliseconds(500 * (random() % 4))};
      model.Report(pending.back().period, outcome, times);
      if (outcome != CallOutcome::kIgnored || chance(50)) pending.back().call.Report(outcome, times);
      pending.pop_back();  // else: dropped, or cancelled
    } else if (chance(90)) {
      manual.Advance(milliseconds(random() % 8000));
      model.SetNow(clock.Now());
      if (chance(30)) breaker.Tick();
    } else {
      const auto state = static_cast<BreakerState>(random() % 6);
      const Duration open_for = seconds(random() % 2 * (random() % 20));
      breaker.ForceState(state, {.who = "test", .open_for = open_for});
      model.Force(state, open_for);
    }
    const auto got = breaker.Take();
    ExpectSame(got, model.Take(), step);
    if (testing::Test::HasFatalFailure()) return;
    ASSERT_EQ(breaker.state(), got.state) << "step " << step;
    breaker.Tick();  // the model's look made what was due
    ASSERT_EQ(steps, model.steps) << "step " << step;
    if (breaker.RetryAfter() > Duration::zero()) {
      ASSERT_FALSE(breaker.TryAcquire().has_value()) << "step " << step;
      ASSERT_FALSE(model.Acquire().has_value()) << "step " << step;
    }
  }
  seen->insert(steps.begin(), steps.end());
}

TEST(CircuitBreakerPropertyTest, AgreesWithAPlainModel) {
  std::set<Step> seen;
  for (uint32_t seed = 1; seed <= 1000 && !testing::Test::HasFatalFailure(); ++seed) CompareWithModel(seed, &seen);
  // Every transition that a breaker can make, forced or by itself, took place somewhere.
  using enum BreakerState;
  using enum TransitionCause;
  const std::vector<Step> by_itself = {{kClosed, kOpen, kFailureRate},       {kClosed, kOpen, kSlowCallRate},
                                       {kOpen, kHalfOpen, kWaitOver},        {kHalfOpen, kOpen, kFailureRate},
                                       {kHalfOpen, kOpen, kSlowCallRate},    {kHalfOpen, kOpen, kProbesTooSlow},
                                       {kHalfOpen, kClosed, kProbesTooSlow}, {kHalfOpen, kClosed, kProbesPassed}};
  for (const auto& step : by_itself) {
    EXPECT_TRUE(seen.count(step) > 0) << TransitionCauseName(std::get<2>(step));
  }
  EXPECT_EQ(seen.size(), by_itself.size() + 36) << "and the forced ones, and no other";
}

// What a state does right after it was entered by force, wherever from: resilience4j's 33 named transitions, and the
// three that it lacks (closed → half-open, metrics-only → open, metrics-only → half-open).
class ForcedTransition : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(ForcedTransition, StartsAfresh) {
  const auto from = static_cast<BreakerState>(std::get<0>(GetParam()));
  const auto to = static_cast<BreakerState>(std::get<1>(GetParam()));
  test::ManualClock clock;
  const BreakerOptions options{.permitted_calls_in_half_open = 3, .minimum_number_of_calls = 2};
  std::vector<Step> steps;
  CircuitBreaker breaker(options, clock, [&](const Transition& t) { steps.emplace_back(t.from, t.to, t.cause); });
  breaker.ForceState(from);
  auto before = breaker.TryAcquire();  // of the period that ends
  clock.Advance(seconds(5));
  breaker.ForceState(to);
  const std::vector<Step> expected = {{BreakerState::kClosed, from, TransitionCause::kForced},
                                      {from, to, TransitionCause::kForced}};
  EXPECT_EQ(steps, expected);
  if (before) before->Report(CallOutcome::kFailure, Duration::zero());
  EXPECT_EQ(breaker.Take().state, to);
  EXPECT_EQ(breaker.Take().buffered_calls, 0);
  EXPECT_EQ(breaker.Take().in_state, Duration::zero());
  std::vector<CircuitBreaker::Call> calls;
  while (calls.size() < 50) {
    auto call = breaker.TryAcquire();
    if (!call) break;
    calls.push_back(std::move(*call));
  }
  const bool shut = to == BreakerState::kOpen || to == BreakerState::kForcedOpen;
  EXPECT_EQ(calls.size(), shut ? 0u : to == BreakerState::kHalfOpen ? 3u : 50u);
  for (auto& call : calls) call.Report(CallOutcome::kFailure, Duration::zero());
  const bool opens = to == BreakerState::kClosed || to == BreakerState::kHalfOpen;
  EXPECT_EQ(breaker.state(), opens ? BreakerState::kOpen : to);
  clock.Advance(options.wait_in_open);
  EXPECT_EQ(breaker.TryAcquire().has_value(), to != BreakerState::kForcedOpen) << "only that lasts for ever";
}

INSTANTIATE_TEST_SUITE_P(All, ForcedTransition, testing::Combine(testing::Range(0, 6), testing::Range(0, 6)),
                         [](const auto& test) {
                           const auto name = [](int i) { return BreakerStateName(static_cast<BreakerState>(i)); };
                           return fmt::format("{}_to_{}", name(std::get<0>(test.param)), name(std::get<1>(test.param)));
                         });

}  // namespace
}  // namespace sluice::qos
