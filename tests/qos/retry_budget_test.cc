#include "qos/retry_budget.h"

#include <atomic>
#include <thread>
#include <vector>

#include "base/status.h"
#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

using std::chrono::seconds;

class RetryBudgetTest : public testing::Test {
 protected:
  int Admitted(RetryBudget& budget, int count, int previous_attempts) {
    int admitted = 0;
    for (int i = 0; i < count; ++i) admitted += budget.Admit(previous_attempts).ok() ? 1 : 0;
    return admitted;
  }
  double Retries(const std::string& outcome) {
    for (const MetricFamily& family : metrics_.Collect()) {
      if (family.name != "sluice_qos_retries_total") continue;
      for (const MetricSample& sample : family.samples) {
        if (sample.label_values[0] == outcome) return sample.value;
      }
    }
    return -1;
  }
  test::ManualClock clock_;
  MetricsRegistry metrics_;
};

TEST_F(RetryBudgetTest, AQuietServerMayBeRetried) {
  RetryBudget budget({}, clock_, metrics_);
  EXPECT_EQ(Admitted(budget, 100, 1), 30) << "3 a second over 10 s";
}

TEST_F(RetryBudgetTest, RetriesAreAFifthOfAllCalls) {
  RetryBudget budget({.min_retries_per_second = 0}, clock_, metrics_);
  EXPECT_EQ(Admitted(budget, 400, 0), 400);
  EXPECT_EQ(Admitted(budget, 1000, 1), 100) << "100 of 500";
  EXPECT_EQ(Admitted(budget, 4, 0), 4);
  EXPECT_EQ(Admitted(budget, 2, 3), 1) << "101 of 505";
  EXPECT_EQ(Retries("admitted"), 101);
  EXPECT_EQ(Retries("RETRY_BUDGET"), 901);
}

TEST_F(RetryBudgetTest, FirstAttemptsAreNeverRefused) {
  RetryBudget budget({.min_retries_per_second = 0}, clock_, metrics_);
  EXPECT_EQ(Admitted(budget, 10, 1), 0);
  EXPECT_EQ(Admitted(budget, 1000, 0), 1000);
  EXPECT_EQ(Admitted(budget, 1, -5), 1) << "nonsense from a client is no retry";
}

TEST_F(RetryBudgetTest, TheRefusalSaysNeverAgain) {
  RetryBudget budget({.min_retries_per_second = 0}, clock_, metrics_);
  const absl::Status refused = budget.Admit(2);
  EXPECT_EQ(ReasonOf(refused), "RETRY_BUDGET");
  EXPECT_FALSE(GetErrorDetails(refused).retry_after.has_value()) << "so that the pushback is -1";
  EXPECT_TRUE(RetrySafe(refused));
}

TEST_F(RetryBudgetTest, TheWindowForgets) {
  RetryBudget budget({}, clock_, metrics_);
  EXPECT_EQ(Admitted(budget, 40, 1), 30);
  clock_.Advance(seconds(9));
  EXPECT_EQ(Admitted(budget, 1, 1), 0);
  clock_.Advance(seconds(1));
  EXPECT_EQ(Admitted(budget, 40, 1), 30);
}

TEST_F(RetryBudgetTest, OffLetsEverythingIn) {
  RetryBudget budget({.enabled = false, .min_retries_per_second = 0}, clock_, metrics_);
  EXPECT_EQ(Admitted(budget, 100, 1), 100);
}

// A storm: every refused or failed call comes back at once. What is let in stays near the first attempts.
TEST_F(RetryBudgetTest, AStormOfRetriesIsHeldDown) {
  RetryBudget budget({}, clock_, metrics_);
  int let_in = 0;
  for (int second = 0; second < 60; ++second) {
    let_in += Admitted(budget, 100, 0) + Admitted(budget, 1000, 1);
    clock_.Advance(seconds(1));
  }
  EXPECT_GE(let_in, 60 * 100);
  EXPECT_LE(let_in, 60 * 100 * 1.25 + 30) << "a fifth of all is a quarter of the first attempts";
}

TEST_F(RetryBudgetTest, ThreadsShareOneBudget) {
  RetryBudget budget({.min_retries_per_second = 10}, clock_, metrics_);
  std::atomic<int> admitted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] { admitted += Admitted(budget, 1000, 1); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admitted, 100);
}

}  // namespace
}  // namespace sluice::qos
