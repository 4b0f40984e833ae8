#include "qos/circuit_breaker.h"

#include <atomic>
#include <latch>
#include <optional>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

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

// As many threads as may live at once under a sanitizer, wave after wave, each asking once at the same moment.
TEST_F(CircuitBreakerTest, TenThousandThreadsGetExactlyThePermits) {
  constexpr int kPermits = 10, kWaves = 10, kThreads = 1000;
  BreakerOptions options;
  options.permitted_calls_in_half_open = kPermits;
  options.initial_state = BreakerState::kHalfOpen;
  CircuitBreaker breaker(options, clock_);
  std::atomic<int> permitted{0};
  std::vector<std::optional<CircuitBreaker::Call>> calls(kWaves * kThreads);
  for (int wave = 0; wave < kWaves; ++wave) {
    std::latch start(kThreads);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, mine = static_cast<size_t>(wave * kThreads + t)] {
        start.arrive_and_wait();
        calls[mine] = breaker.TryAcquire();
        if (calls[mine]) ++permitted;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(permitted, kPermits);
  EXPECT_EQ(breaker.Take().not_permitted, static_cast<uint64_t>(kWaves * kThreads - kPermits));
}

TEST_F(CircuitBreakerTest, ATimeWindowForgetsBySeconds) {
  BreakerOptions options = Small();
  options.sliding_window_type = WindowType::kTimeBased;
  options.minimum_number_of_calls = 5;
  CircuitBreaker breaker(options, clock_);
  Run(breaker, 4, CallOutcome::kFailure);
  clock_.Advance(seconds(9));
  EXPECT_EQ(breaker.Take().buffered_calls, 4);
  clock_.Advance(seconds(1));
  EXPECT_EQ(breaker.Take().buffered_calls, 0) << "looking is enough";
  Run(breaker, 1, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed) << "1 call in the last 10 s";
  Run(breaker, 4, CallOutcome::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  clock_.Advance(seconds(30));
  EXPECT_EQ(breaker.Take().failed_calls, 5) << "still shows why it opened";
}

TEST_F(CircuitBreakerTest, AStallIsSlowToo) {
  BreakerOptions options = Small();
  options.slow_stall_duration = seconds(1);
  CircuitBreaker breaker(options, clock_);
  breaker.TryAcquire()->Report(CallOutcome::kSuccess, {.ttft = seconds(2), .longest_stall = seconds(1)});
  EXPECT_EQ(breaker.Take().slow_calls, 0) << "both at their limits";
  breaker.TryAcquire()->Report(CallOutcome::kSuccess, {.longest_stall = seconds(1) + Duration(1)});
  EXPECT_EQ(breaker.Take().slow_calls, 1);
  breaker.TryAcquire()->Report(CallOutcome::kSuccess, {.ttft = seconds(3), .longest_stall = seconds(9)});
  EXPECT_EQ(breaker.Take().slow_calls, 2) << "slow twice is slow once";
}

TEST_F(CircuitBreakerTest, HalfOpensByItselfWhenAsked) {
  BreakerOptions options = Small();
  options.automatic_transition_to_half_open = true;
  std::vector<Transition> heard;
  CircuitBreaker breaker(options, clock_, [&](const Transition& t) { heard.push_back(t); });
  Trip(breaker);
  clock_.Advance(seconds(60));
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
  EXPECT_EQ(breaker.RetryAfter(), Duration::zero());
  ASSERT_EQ(heard.size(), 1u) << "nobody made the transition yet";
  breaker.Tick();
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[1].to, BreakerState::kHalfOpen);
  EXPECT_EQ(heard[1].cause, TransitionCause::kWaitOver);
}

TEST_F(CircuitBreakerTest, HalfOpenMayCloseWhenNobodyProbes) {
  BreakerOptions options = Small();
  options.max_wait_in_half_open = seconds(10);
  options.state_after_half_open_wait = BreakerState::kClosed;
  CircuitBreaker breaker(options, clock_);
  auto hanging = FirstProbe(breaker);
  clock_.Advance(seconds(10));
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  Run(breaker, 3, CallOutcome::kFailure);
  EXPECT_EQ(breaker.Take().buffered_calls, 3);
  EXPECT_EQ(breaker.Take().last.cause, TransitionCause::kProbesTooSlow);
}

TEST_F(CircuitBreakerTest, ListenersHearWhyWithoutALock) {
  std::vector<Transition> heard;
  CircuitBreaker* self = nullptr;
  CircuitBreaker breaker(Small(), clock_, [&](const Transition& t) {
    heard.push_back(t);
    EXPECT_EQ(self->state(), t.to) << "would hang under the lock";
  });
  self = &breaker;
  Run(breaker, 2, CallOutcome::kSuccess);
  Run(breaker, 2, CallOutcome::kFailure);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].from, BreakerState::kClosed);
  EXPECT_EQ(heard[0].to, BreakerState::kOpen);
  EXPECT_EQ(heard[0].cause, TransitionCause::kFailureRate);
  EXPECT_EQ(heard[0].calls, 4);
  EXPECT_DOUBLE_EQ(heard[0].failure_rate, 0.5);
  breaker.ForceState(BreakerState::kOpen, {.who = "key 'ops'", .why = "bad build", .open_for = seconds(5)});
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[1].from, BreakerState::kOpen);
  EXPECT_EQ(heard[1].number, heard[0].number + 1);
  const auto snapshot = breaker.Take();
  EXPECT_EQ(snapshot.last.who, "key 'ops'");
  EXPECT_EQ(snapshot.last.why, "bad build");
  EXPECT_EQ(TransitionCauseName(snapshot.last.cause), "forced");
  EXPECT_EQ(breaker.RetryAfter(), seconds(5));
  clock_.Advance(seconds(5));
  EXPECT_TRUE(breaker.TryAcquire().has_value());
  EXPECT_EQ(breaker.Take().last.who, "");
}

}  // namespace
}  // namespace sluice::qos
