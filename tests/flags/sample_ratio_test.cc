#include "flags/sample_ratio.h"

#include <cmath>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "flags/bucket.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace sluice::flags {
namespace {

constexpr uint32_t kThreshold = 1000;

// With a prior of a = b = 50 and few draws the integral can be done by hand: E = prod (a + k) / (a + b + n) / share.
TEST(SampleRatioTest, EValueAgreesWithThePredictiveProduct) {
  for (const double share : {0.5, 0.1, 0.0001}) {
    double product = 0;
    uint64_t in = 0, total = 0;
    for (const bool one : {true, false, true, true, false, false, true}) {
      const double predicted = (100 * share + static_cast<double>(in)) / (100 + static_cast<double>(total));
      product += one ? std::log(predicted / share) : std::log((1 - predicted) / (1 - share));
      in += one;
      ++total;
      EXPECT_NEAR(LogSampleRatioEValue(in, total, share), product, 1e-9);
    }
  }
  EXPECT_NEAR(LogSampleRatioEValue(0, 0, 0.3), 0, 1e-12);
}

// Looked at after each of 5000 draws, 400 times: the alarm rate stays below alpha = 1 % (bound: its upper 4 sigma).
TEST(SampleRatioTest, FalseAlarmsAreBoundedAndRealOnesFound) {
  constexpr uint32_t kSeed = 20260401;
  constexpr int kRuns = 400, kDraws = 5000;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  for (const double share : {0.01, 0.1, 0.5}) {
    int alarms = 0;
    for (int run = 0; run < kRuns; ++run) {
      std::bernoulli_distribution draw(share);
      uint64_t in = 0;
      bool alarm = false;
      for (uint64_t n = 1; n <= kDraws && !alarm; ++n) {
        in += draw(random);
        alarm = LogSampleRatioEValue(in, n, share) >= std::log(100.0);
      }
      alarms += alarm;
    }
    EXPECT_LE(alarms, kRuns * 0.01 + 4 * std::sqrt(kRuns * 0.01)) << share;
  }
  std::bernoulli_distribution wrong(0.13);  // configured: 10 %
  uint64_t in = 0;
  for (int n = 0; n < kDraws; ++n) in += wrong(random);
  EXPECT_GT(LogSampleRatioEValue(in, kDraws, 0.1), std::log(1000.0));
}

class WatchTest : public testing::Test {
 protected:
  void Key(int i, bool wrong = false) {
    const KeyHash hash = HashKey(2, "salt", fmt::format("user-{}", i));
    ratio_.Observe((hash.first % kBuckets < kThreshold) != wrong, hash.second, kThreshold);
  }
  Gauge e_value_, alarm_;
  SampleRatio ratio_{e_value_, alarm_};
};

TEST_F(WatchTest, HonestKeysRaiseNoAlarm) {
  ratio_.Restart(0.1, kThreshold);
  for (int i = 0; i < 200000; ++i) Key(i);  // several windows
  EXPECT_EQ(alarm_.Value(), 0);
  EXPECT_LT(e_value_.Value(), 1000);
}

TEST_F(WatchTest, AKeyCountsOnceAWindow) {
  ratio_.Restart(0.5, kThreshold);
  for (int i = 0; i < 100000; ++i) Key(1);
  EXPECT_EQ(e_value_.Value(), 1) << "64 times the same key would have been judged";
}

TEST_F(WatchTest, AWrongShareRaisesTheAlarmUntilARestart) {
  ratio_.Restart(0.2, kThreshold);  // it is 10 %
  for (int i = 0; i < 2000; ++i) Key(i);
  EXPECT_EQ(alarm_.Value(), 1);
  EXPECT_GE(e_value_.Value(), 1000);
  ratio_.Restart(0.1, kThreshold);
  EXPECT_EQ(alarm_.Value(), 0);
  EXPECT_EQ(e_value_.Value(), 1);
  for (int i = 0; i < 2000; ++i) Key(i);
  EXPECT_EQ(alarm_.Value(), 0);
  EXPECT_NE(e_value_.Value(), 1) << "the new window counts";
}

TEST_F(WatchTest, OnlyDecisionsOfThePercentageCount) {
  ratio_.Restart(std::nullopt, kThreshold);
  for (int i = 0; i < 2000; ++i) Key(i, /*wrong=*/true);
  EXPECT_EQ(e_value_.Value(), 1);
  ratio_.Restart(0.2, kThreshold + 1);
  for (int i = 0; i < 2000; ++i) Key(i, /*wrong=*/true);
  EXPECT_EQ(e_value_.Value(), 1) << "another threshold: the set before";
}

TEST_F(WatchTest, ThreadsCountTogetherWhileItRestarts) {
  ratio_.Restart(0.1, kThreshold);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 20000; ++i) Key(i * 4 + t);
    });
  }
  for (int i = 0; i < 300; ++i) ratio_.Restart(0.1, kThreshold);
  for (std::thread& thread : threads) thread.join();
  // Which keys share a window differs from run to run, so an alarm (1,000) would be false once in some hundred runs.
  EXPECT_LT(e_value_.Value(), 1e9);
}

}  // namespace
}  // namespace sluice::flags
