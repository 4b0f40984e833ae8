#include "qos/circuit_breaker.h"

#include <atomic>
#include <random>
#include <thread>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

BreakerOptions Small() {
  return {.slow_call_duration = seconds(2),
          .permitted_calls_in_half_open = 3,
          .sliding_window_size = 10,
          .minimum_number_of_calls = 4,
          .wait_in_open = seconds(60)};
}

class CircuitBreakerTest : public testing::Test {
 protected:
  // `count` calls one after the other; each must be permitted.
  void Run(CircuitBreaker& breaker, int count, CallOutcome outcome, Duration measure = Duration::zero()) {
    for (int i = 0; i < count; ++i) {
      auto call = breaker.TryAcquire();
      ASSERT_TRUE(call.has_value()) << "call " << i << " in state " << BreakerStateName(breaker.state());
      call->Report(outcome, measure);
    }
  }
  void Trip(CircuitBreaker& breaker) {
    Run(breaker, 4, CallOutcome::kFailure);
    ASSERT_EQ(breaker.state(), BreakerState::kOpen);
  }
  // Open and wait until the first probe is out.
  std::optional<CircuitBreaker::Call> FirstProbe(CircuitBreaker& breaker) {
    Trip(breaker);
    clock_.Advance(seconds(60));
    return breaker.TryAcquire();
  }

  test::ManualClock clock_;
};

TEST_F(CircuitBreakerTest, OpensAtTheFailureRate) {
  CircuitBreaker breaker(Small(), clock_);
  Run(breaker, 5, CallOutcome::kSuccess);
  Run(breaker, 4, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed) << "4 of 9";
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen) << "5 of 10 reaches 0.5";
  EXPECT_FALSE(breaker.TryAcquire().has_value());
  const auto snapshot = breaker.Take();
  EXPECT_EQ(snapshot.buffered_calls, 10) << "the window shows why it opened";
  EXPECT_EQ(snapshot.failed_calls, 5);
  EXPECT_DOUBLE_EQ(snapshot.failure_rate, 0.5);
  EXPECT_EQ(snapshot.not_permitted, 1u);
}

TEST_F(CircuitBreakerTest, NothingBeforeTheMinimum) {
  CircuitBreaker breaker(Small(), clock_);
  Run(breaker, 3, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  EXPECT_EQ(breaker.Take().failure_rate, -1);
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
}

TEST_F(CircuitBreakerTest, MinimumIsAtMostTheWindow) {
  BreakerOptions options = Small();
  options.minimum_number_of_calls = 1000;
  CircuitBreaker breaker(options, clock_);
  Run(breaker, 9, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
}

TEST_F(CircuitBreakerTest, WindowForgetsOldCalls) {
  BreakerOptions options = Small();
  options.failure_rate_threshold = 0.7;
  CircuitBreaker breaker(options, clock_);
  Run(breaker, 3, CallOutcome::kSuccess);
  Run(breaker, 5, CallOutcome::kFailure);
  Run(breaker, 10, CallOutcome::kSuccess);
  EXPECT_EQ(breaker.Take().failed_calls, 0);
  EXPECT_EQ(breaker.Take().buffered_calls, 10);
  Run(breaker, 6, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed) << "6 of the last 10";
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen) << "7 of the last 10 is exactly 0.7";
}

TEST_F(CircuitBreakerTest, SlowCallsOpenToo) {
  BreakerOptions options = Small();
  options.slow_call_rate_threshold = 0.75;
  CircuitBreaker breaker(options, clock_);
  Run(breaker, 1, CallOutcome::kSuccess, seconds(2));  // not above the threshold: not slow
  Run(breaker, 2, CallOutcome::kSuccess, seconds(2) + Duration(1));
  EXPECT_EQ(breaker.Take().slow_calls, 2);
  Run(breaker, 1, CallOutcome::kSuccess, seconds(3));
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  EXPECT_EQ(breaker.Take().failed_calls, 0);
}

TEST_F(CircuitBreakerTest, IgnoredCallsCountForNothing) {
  CircuitBreaker breaker(Small(), clock_);
  Run(breaker, 50, CallOutcome::kIgnored, seconds(100));
  { auto dropped = breaker.TryAcquire(); }
  EXPECT_EQ(breaker.Take().buffered_calls, 0);
}

TEST_F(CircuitBreakerTest, ACallReportsOnce) {
  CircuitBreaker breaker(Small(), clock_);
  auto call = breaker.TryAcquire();
  call->Report(CallOutcome::kSuccess, Duration::zero());
  call->Report(CallOutcome::kFailure, Duration::zero());
  CircuitBreaker::Call moved = std::move(*call);
  moved.Report(CallOutcome::kFailure, Duration::zero());
  EXPECT_EQ(breaker.Take().buffered_calls, 1);
  EXPECT_EQ(breaker.Take().failed_calls, 0);
}

TEST_F(CircuitBreakerTest, HalfOpensLazilyAfterTheWait) {
  CircuitBreaker breaker(Small(), clock_);
  Trip(breaker);
  EXPECT_EQ(breaker.RetryAfter(), seconds(60));
  clock_.Advance(seconds(60) - Duration(1));
  EXPECT_FALSE(breaker.TryAcquire().has_value());
  EXPECT_EQ(breaker.RetryAfter(), Duration(1));
  clock_.Advance(Duration(1));
  EXPECT_EQ(breaker.RetryAfter(), Duration::zero());
  EXPECT_EQ(breaker.state(), BreakerState::kOpen) << "nobody asked yet";
  EXPECT_TRUE(breaker.TryAcquire().has_value());
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
}

TEST_F(CircuitBreakerTest, HalfOpenCloses) {
  CircuitBreaker breaker(Small(), clock_);
  FirstProbe(breaker)->Report(CallOutcome::kSuccess, Duration::zero());
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen) << "2 of 3 probes";
  Run(breaker, 1, CallOutcome::kSuccess);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed) << "1 of 3 failed";
  EXPECT_EQ(breaker.Take().buffered_calls, 0) << "starts afresh";
}

TEST_F(CircuitBreakerTest, HalfOpenOpensAgain) {
  CircuitBreaker breaker(Small(), clock_);
  FirstProbe(breaker)->Report(CallOutcome::kFailure, Duration::zero());
  Run(breaker, 1, CallOutcome::kSuccess);
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  EXPECT_EQ(breaker.RetryAfter(), seconds(60)) << "a new wait";
}

TEST_F(CircuitBreakerTest, HalfOpenPermitsAreBoundedAndComeBack) {
  CircuitBreaker breaker(Small(), clock_);
  auto first = FirstProbe(breaker), second = breaker.TryAcquire(), third = breaker.TryAcquire();
  ASSERT_TRUE(first && second && third);
  EXPECT_FALSE(breaker.TryAcquire().has_value());
  EXPECT_EQ(breaker.RetryAfter(), seconds(1)) << "a guess";
  second.reset();                                          // dropped
  third->Report(CallOutcome::kIgnored, Duration::zero());  // ignored
  second = breaker.TryAcquire();
  third = breaker.TryAcquire();
  EXPECT_TRUE(second && third);
  EXPECT_FALSE(breaker.TryAcquire().has_value());
  *second = std::move(*third);  // the overwritten call is dropped
  EXPECT_TRUE(breaker.TryAcquire().has_value());
}

TEST_F(CircuitBreakerTest, LateReportsOfAnOlderPeriodAreDropped) {
  CircuitBreaker breaker(Small(), clock_);
  auto stale_failure = breaker.TryAcquire(), stale_drop = breaker.TryAcquire();
  auto probe = FirstProbe(breaker);
  auto second = breaker.TryAcquire(), third = breaker.TryAcquire();
  ASSERT_TRUE(probe && second && third);
  stale_failure->Report(CallOutcome::kFailure, Duration::zero());
  stale_drop.reset();
  EXPECT_EQ(breaker.Take().buffered_calls, 0);
  EXPECT_FALSE(breaker.TryAcquire().has_value()) << "a stale drop must not add a fourth probe";
}

TEST_F(CircuitBreakerTest, HalfOpenGivesUpAfterMaxWait) {
  BreakerOptions options = Small();
  options.max_wait_in_half_open = seconds(10);
  CircuitBreaker breaker(options, clock_);
  auto hanging = FirstProbe(breaker);
  clock_.Advance(seconds(10) - Duration(1));
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
  clock_.Advance(Duration(1));
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  EXPECT_EQ(breaker.Take().state, BreakerState::kOpen);
  EXPECT_EQ(breaker.RetryAfter(), seconds(60));
  EXPECT_FALSE(breaker.TryAcquire().has_value());
  hanging->Report(CallOutcome::kSuccess, Duration::zero());
  clock_.Advance(seconds(59));
  EXPECT_FALSE(breaker.TryAcquire().has_value());
  clock_.Advance(seconds(1));
  EXPECT_TRUE(breaker.TryAcquire().has_value()) << "counted from the end of half-open, whoever looked when";
}

TEST_F(CircuitBreakerTest, ForcedStates) {
  CircuitBreaker breaker(Small(), clock_);
  breaker.ForceState(BreakerState::kForcedOpen);
  clock_.Advance(std::chrono::hours(24));
  EXPECT_FALSE(breaker.TryAcquire().has_value()) << "for ever";
  EXPECT_EQ(breaker.RetryAfter(), seconds(60));

  breaker.ForceState(BreakerState::kMetricsOnly);
  Run(breaker, 20, CallOutcome::kFailure, seconds(9));
  EXPECT_EQ(breaker.state(), BreakerState::kMetricsOnly);
  EXPECT_EQ(breaker.Take().failure_rate, 1);
  EXPECT_EQ(breaker.Take().slow_calls, 10);

  breaker.ForceState(BreakerState::kDisabled);
  Run(breaker, 20, CallOutcome::kFailure);
  EXPECT_EQ(breaker.Take().buffered_calls, 0);

  breaker.ForceState(BreakerState::kClosed);
  Run(breaker, 3, CallOutcome::kFailure);
  breaker.ForceState(BreakerState::kClosed);
  EXPECT_EQ(breaker.Take().buffered_calls, 0) << "a reset";

  breaker.ForceState(BreakerState::kOpen);
  EXPECT_EQ(breaker.RetryAfter(), seconds(60));
  breaker.ForceState(BreakerState::kHalfOpen);
  EXPECT_TRUE(breaker.TryAcquire().has_value());
}

TEST_F(CircuitBreakerTest, InitialState) {
  BreakerOptions options = Small();
  options.initial_state = BreakerState::kMetricsOnly;
  EXPECT_EQ(CircuitBreaker(options, clock_).state(), BreakerState::kMetricsOnly);
}

TEST(BreakerStateTest, Names) {
  EXPECT_EQ(BreakerStateName(BreakerState::kHalfOpen), "half_open");
  EXPECT_EQ(BreakerStateName(BreakerState::kMetricsOnly), "metrics_only");
}

TEST_F(CircuitBreakerTest, ExactlyNProbesWithManyThreads) {
  constexpr int kPermits = 10, kThreads = 8;
  BreakerOptions options;
  options.permitted_calls_in_half_open = kPermits;
  options.initial_state = BreakerState::kHalfOpen;
  for (int round = 0; round < 50; ++round) {
    CircuitBreaker breaker(options, clock_);
    std::atomic<int> held{0}, most{0};
    std::vector<std::thread> threads;
    std::vector<std::vector<CircuitBreaker::Call>> kept(kThreads);
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 200; ++i) {  // permits come and go ...
          auto call = breaker.TryAcquire();
          if (!call) continue;
          const int now = ++held;
          for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
          }
          --held;
          if (i % 2 == 0) call->Report(CallOutcome::kIgnored, Duration::zero());
        }
        for (int i = 0; i < 20; ++i) {  // ... and then they stay
          if (auto call = breaker.TryAcquire()) kept[static_cast<size_t>(t)].push_back(std::move(*call));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_LE(most, kPermits);
    size_t total = 0;
    for (const auto& calls : kept) total += calls.size();
    std::vector<CircuitBreaker::Call> rest;
    while (auto call = breaker.TryAcquire()) rest.push_back(std::move(*call));
    ASSERT_EQ(total + rest.size(), static_cast<size_t>(kPermits)) << "none leaked, none made up";
  }
}

// The same rules, written again as plainly as possible: the whole history of a period, recounted at each step.
class Model {
 public:
  struct Past {
    bool failed, slow;
  };

  Model(const BreakerOptions& options, MonoTime now) : options_(options) { Go(options.initial_state, now); }

  std::optional<int> Acquire(MonoTime now) {
    GiveUpProbing(now);
    if (state_ == BreakerState::kOpen && now - since_ >= options_.wait_in_open) Go(BreakerState::kHalfOpen, now);
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

  void Report(int period, CallOutcome outcome, Duration measure, MonoTime now) {
    GiveUpProbing(now);
    if (period != period_) return;
    --probing_;
    if (outcome == CallOutcome::kIgnored || state_ == BreakerState::kDisabled) return;
    history_.push_back({outcome == CallOutcome::kFailure, measure > options_.slow_call_duration});
    if (state_ == BreakerState::kMetricsOnly || !RatesKnown()) return;
    if (FailureRate() >= options_.failure_rate_threshold || SlowRate() >= options_.slow_call_rate_threshold) {
      Open(now);
    } else if (state_ == BreakerState::kHalfOpen) {
      Go(BreakerState::kClosed, now);
    }
  }

  void Force(BreakerState state, MonoTime now) { state == BreakerState::kOpen ? Open(now) : Go(state, now); }

  CircuitBreaker::Snapshot Take(MonoTime now) {
    GiveUpProbing(now);
    CircuitBreaker::Snapshot out{.state = state_, .buffered_calls = static_cast<int>(Window().size())};
    for (const Past& past : Window()) {
      out.failed_calls += past.failed;
      out.slow_calls += past.slow;
    }
    out.failure_rate = RatesKnown() ? FailureRate() : -1;
    out.slow_call_rate = RatesKnown() ? SlowRate() : -1;
    out.not_permitted = refused_;
    return out;
  }

 private:
  void GiveUpProbing(MonoTime now) {
    if (state_ == BreakerState::kHalfOpen && options_.max_wait_in_half_open > Duration::zero() &&
        now - since_ >= options_.max_wait_in_half_open) {
      Open(since_ + options_.max_wait_in_half_open);
    }
  }
  void Go(BreakerState state, MonoTime now) {
    Open(now);
    state_ = state;
    history_.clear();
    capacity_ = state == BreakerState::kHalfOpen ? options_.permitted_calls_in_half_open : options_.sliding_window_size;
  }
  void Open(MonoTime now) {  // history and its window stay
    state_ = BreakerState::kOpen;
    since_ = now;
    ++period_;
    probing_ = 0;
  }
  std::vector<Past> Window() const {
    const size_t n = std::min(history_.size(), static_cast<size_t>(capacity_));
    return {history_.end() - static_cast<std::ptrdiff_t>(n), history_.end()};
  }
  bool RatesKnown() const {
    const int n = static_cast<int>(Window().size());
    return n >= options_.minimum_number_of_calls || n >= capacity_;
  }
  double FailureRate() const {
    double n = 0;
    for (const Past& past : Window()) n += past.failed;
    return n / static_cast<double>(Window().size());
  }
  double SlowRate() const {
    double n = 0;
    for (const Past& past : Window()) n += past.slow;
    return n / static_cast<double>(Window().size());
  }

  const BreakerOptions options_;
  BreakerState state_ = BreakerState::kClosed;
  MonoTime since_{};
  int period_ = 0, probing_ = 0, capacity_ = 0;
  uint64_t refused_ = 0;
  std::vector<Past> history_;
};

BreakerOptions RandomOptions(std::mt19937& random) {
  const auto between = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  return {.failure_rate_threshold = between(1, 10) / 10.0,
          .slow_call_rate_threshold = between(1, 10) / 10.0,
          .slow_call_duration = seconds(2),
          .permitted_calls_in_half_open = between(1, 5),
          .max_wait_in_half_open = seconds(between(0, 1) * between(1, 20)),
          .sliding_window_size = between(1, 12),
          .minimum_number_of_calls = between(1, 15),
          .wait_in_open = seconds(between(0, 15)),
          .initial_state = static_cast<BreakerState>(between(0, 5))};
}

void CompareWithModel(uint32_t seed) {
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  const auto chance = [&](int percent) { return static_cast<int>(random() % 100) < percent; };
  test::ManualClock clock;
  const BreakerOptions options = RandomOptions(random);
  CircuitBreaker breaker(options, clock);
  Model model(options, clock.Now());
  struct Pending {
    CircuitBreaker::Call call;
    int period;
  };
  std::vector<Pending> pending;
  for (int step = 0; step < 400; ++step) {
    if (chance(45)) {
      auto call = breaker.TryAcquire();
      const auto period = model.Acquire(clock.Now());
      ASSERT_EQ(call.has_value(), period.has_value()) << "step " << step;
      if (call) pending.push_back({std::move(*call), *period});
    } else if (!pending.empty() && chance(75)) {
      const size_t i = random() % pending.size();
      std::swap(pending[i], pending.back());
      const auto outcome = static_cast<CallOutcome>(random() % 3);
      const Duration measure = seconds(random() % 5);
      model.Report(pending.back().period, outcome, measure, clock.Now());
      if (outcome != CallOutcome::kIgnored || chance(50)) pending.back().call.Report(outcome, measure);
      pending.pop_back();  // else: dropped
    } else if (chance(90)) {
      clock.Advance(milliseconds(random() % 8000));
    } else {
      const auto state = static_cast<BreakerState>(random() % 6);
      breaker.ForceState(state);
      model.Force(state, clock.Now());
    }
    const auto got = breaker.Take(), want = model.Take(clock.Now());
    ASSERT_EQ(got.state, want.state) << "step " << step;
    ASSERT_EQ(got.buffered_calls, want.buffered_calls) << "step " << step;
    ASSERT_EQ(got.failed_calls, want.failed_calls) << "step " << step;
    ASSERT_EQ(got.slow_calls, want.slow_calls) << "step " << step;
    ASSERT_DOUBLE_EQ(got.failure_rate, want.failure_rate) << "step " << step;
    ASSERT_DOUBLE_EQ(got.slow_call_rate, want.slow_call_rate) << "step " << step;
    ASSERT_EQ(got.not_permitted, want.not_permitted) << "step " << step;
    ASSERT_EQ(breaker.state(), want.state) << "step " << step;
    const bool refused_before = breaker.RetryAfter() > Duration::zero();
    if (refused_before) {
      ASSERT_FALSE(breaker.TryAcquire().has_value()) << "step " << step;
      ASSERT_FALSE(model.Acquire(clock.Now()).has_value()) << "step " << step;
    }
  }
}

TEST(CircuitBreakerPropertyTest, AgreesWithAPlainModel) {
  for (uint32_t seed = 1; seed <= 500 && !testing::Test::HasFatalFailure(); ++seed) CompareWithModel(seed);
}

}  // namespace
}  // namespace sluice::qos
