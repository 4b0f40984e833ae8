#include "rollout/analysis/e_process.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "rollout/analysis/exceedance.h"
#include "rollout/analysis/trend.h"
#include "rollout/analysis/window_codec.h"

namespace sluice::rollout {
namespace {

constexpr uint32_t kSeed = 20261123;

TEST(RatioTest, OneWindowIsTheFormula) {
  RatioTest test(1, {2});
  test.Add(100, 3, 900, 9);
  const double t2 = 200.0 / 1100, t1 = 0.1;
  EXPECT_NEAR(test.LogE(), 3 * std::log(t2 / t1) + 9 * std::log((1 - t2) / (1 - t1)), 1e-9);
  test.Add(0, 0, 900, 100);
  test.Add(100, 0, 900, 0);
  EXPECT_NEAR(test.LogE(), 3 * std::log(t2 / t1) + 9 * std::log((1 - t2) / (1 - t1)), 1e-9) << "they say nothing";
  RatioTest mixed(1, {2, 5});
  mixed.Add(100, 3, 900, 9);
  const double t5 = 500.0 / 1400;
  EXPECT_NEAR(std::exp(mixed.LogE()),
              (std::pow(t2 / t1, 3) * std::pow((1 - t2) / (1 - t1), 9) +
               std::pow(t5 / t1, 3) * std::pow((1 - t5) / (1 - t1), 9)) /
                  2,
              1e-9);
}

// Ville's inequality, for the boundary of the hypothesis and inside it, in both directions.
TEST(RatioTest, RarelyReachesItsLimitUnderTheHypothesis) {
  std::mt19937 random(kSeed);
  struct Case {
    double null, true_ratio;
    std::vector<double> alternatives;
  };
  for (const Case& c : {Case{1, 1, {1.5, 2, 3, 5, 10, 20}}, Case{1, 0.5, {1.5, 2, 3}}, Case{2, 2, {0.5, 1, 1.33}},
                        Case{2, 4, {0.5, 1, 1.33}}}) {
    int reached = 0;
    constexpr int kTrials = 1'000;
    for (int trial = 0; trial < kTrials; ++trial) {
      RatioTest test(c.null, c.alternatives);
      std::poisson_distribution<uint64_t> canary(100 * 0.02 * c.true_ratio), baseline(900 * 0.02);
      for (int window = 0; window < 60; ++window) {
        test.Add(100, canary(random), 900, baseline(random));
        if (test.LogE() < std::log(20.0)) continue;
        ++reached;
        break;
      }
    }
    EXPECT_LE(reached, 70) << "alpha 5 %, ratio " << c.true_ratio << " against " << c.null << ", seed " << kSeed;
  }
}

TEST(RateTest, RarelyReachesItsLimitUnderTheHypothesisAndSurelyBeyondIt) {
  std::mt19937 random(kSeed);
  for (const auto& [rate, at_least, at_most] : {std::tuple{0.001, 0, 70}, {0.0005, 0, 30}, {0.01, 990, 1'000}}) {
    int reached = 0;
    std::binomial_distribution<uint64_t> crashes(50, rate);
    for (int trial = 0; trial < 1'000; ++trial) {
      RateTest test(0.001, {0.003, 0.01, 0.05});
      for (int window = 0; window < 100; ++window) {
        test.Add(50, crashes(random));
        if (test.LogE() < std::log(20.0)) continue;
        ++reached;
        break;
      }
    }
    EXPECT_GE(reached, at_least) << rate;
    EXPECT_LE(reached, at_most) << rate;
  }
}

TEST(RatioTest, StatesThatDoNotFitAreRefused) {
  RatioTest test(1, {2, 3});
  EXPECT_FALSE(test.Restore({1}));
  EXPECT_FALSE(test.Restore({1, std::nan("")}));
  EXPECT_EQ(test.LogE(), 0);
  EXPECT_TRUE(test.Restore({1, 1}));
  EXPECT_NEAR(test.LogE(), 1, 1e-12);
}

TEST(PooledRatio, IsNotMisledByADriftingBaseRate) {
  PooledRatio pooled;
  pooled.Add(1'000, 10, 9'000, 90);      // 1 % in both
  pooled.Add(9'000, 1'800, 1'000, 200);  // 20 % in both, while the canary has most: pooled rates would say 16 times
  const PooledRatio::Estimate estimate = pooled.Get();
  EXPECT_NEAR(estimate.ratio, 1, 1e-9);
  EXPECT_LT(estimate.low, 1);
  EXPECT_GT(estimate.high, 1);
  EXPECT_FALSE(PooledRatio().Get().known);
  PooledRatio one_sided;
  one_sided.Add(100, 5, 100, 0);
  EXPECT_TRUE(std::isinf(one_sided.Get().ratio));
}

Strata Draw(std::mt19937& random, int n, double scale, double sigma) {
  Strata strata;
  std::lognormal_distribution<double> draw(std::log(100.0), sigma);
  for (int i = 0; i < n; ++i) strata[static_cast<size_t>(i) % kStrata].Add(draw(random) * scale);
  return strata;
}

TEST(Exceedance, FindsALongerTailAndSparesAnEqualOne) {
  std::mt19937 random(kSeed);
  for (const double sigma : {0.3, 1.0}) {
    int equal = 0, double_tail = 0, better = 0, better_when_worse = 0;
    for (int trial = 0; trial < 200; ++trial) {
      Exceedance same(1.2, true), longer(1.2, true), not_worse(1.5, false), worse(1.5, false);
      bool same_reached = false, worse_reached = false;
      for (int window = 0; window < 40; ++window) {
        const Strata baseline = Draw(random, 400, 1, sigma);
        same.Add(Draw(random, 100, 1.2, sigma), baseline);
        longer.Add(Draw(random, 100, 2, sigma), baseline);
        not_worse.Add(Draw(random, 100, 1, sigma), baseline);
        worse.Add(Draw(random, 100, 1.5, sigma), baseline);
        same_reached = same_reached || same.LogE() > std::log(20.0);
        worse_reached = worse_reached || worse.LogE() > std::log(20.0);
      }
      equal += same_reached;
      better_when_worse += worse_reached;
      double_tail += longer.LogE() > std::log(20.0);
      better += not_worse.LogE() > std::log(20.0);
    }
    EXPECT_LE(equal, 20) << "of 200 at alpha 5 %, sigma " << sigma << ", seed " << kSeed;
    EXPECT_LE(better_when_worse, 20) << "sigma " << sigma;
    EXPECT_GE(double_tail, 190) << "sigma " << sigma;
    EXPECT_GE(better, 190) << "sigma " << sigma;
  }
}

TEST(Exceedance, AThinPastComparesNothing) {
  std::mt19937 random(kSeed);
  Exceedance test(1.2, true);
  test.Add(Draw(random, 400, 10, 0.3), Draw(random, 400, 1, 0.3));
  EXPECT_EQ(test.LogE(), 0) << "no threshold yet";
  Exceedance thin(1.2, true);
  for (int i = 0; i < 6; ++i) thin.Add(Draw(random, 40, 10, 0.3), Draw(random, 40, 1, 0.3));
  EXPECT_EQ(thin.LogE(), 0) << "ten values of each stratum a window: 50 before the sixth";
  for (int i = 0; i < 20; ++i) thin.Add(Draw(random, 40, 10, 0.3), Draw(random, 40, 1, 0.3));
  EXPECT_GT(thin.LogE(), std::log(20.0)) << "a hold-back that is thin is still compared with";
}

TEST(TheilSen, ALineWithOutliersAndNoise) {
  std::mt19937 random(kSeed);
  std::normal_distribution<double> noise(0, 5);
  std::vector<TrendPoint> points;
  for (int i = 0; i < 100; ++i) points.push_back({60.0 * i, 1'000 + 0.5 * i + noise(random) + (i % 10 == 0 ? 900 : 0)});
  const Trend trend = TheilSen(points);
  ASSERT_TRUE(trend.known);
  EXPECT_NEAR(trend.slope, 0.5 / 60, 0.1 / 60);
  EXPECT_LT(trend.low, 0.5 / 60);
  EXPECT_GT(trend.high, 0.5 / 60);
  EXPECT_GT(trend.low, 0);
  EXPECT_FALSE(TheilSen(std::span(points).first(7)).known);
  for (TrendPoint& point : points) point.value = 7;
  EXPECT_EQ(TheilSen(points).slope, 0);
}

// How often the interval's lower end lies above 0 for series that do not grow but wander.
TEST(TheilSen, NeighboursThatResembleEachOtherWidenTheInterval) {
  std::mt19937 random(kSeed);
  std::normal_distribution<double> noise;
  int alarms = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::vector<TrendPoint> points;
    double wander = 0;
    for (int i = 0; i < 100; ++i) {
      wander = 0.6 * wander + noise(random);
      points.push_back({60.0 * i, 100 + wander});
    }
    alarms += TheilSen(points).low > 0;
  }
  EXPECT_LE(alarms, 30) << "2.5 % were promised; seed " << kSeed;
}

TEST(WindowCodec, SurvivesAndRefuses) {
  Window window{.attempt = "f#1",
                .replica = "host:8001",
                .index = 178'000'000,
                .length = std::chrono::seconds(10),
                .canary_bps = 150,
                .mixed = true,
                .rss_bytes = 1.5e9};
  window.arms[1] = {.requests = 12, .events = 10, .failures = 3, .first_users = 2, .crashes = 1, .memory_bytes = 77};
  window.arms[1].ttft_ms[2].Add(12.5, 7);
  window.arms[0].latency_ms[3].Add(0);
  const std::string text = Encode(window);
  const auto read = DecodeWindow(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(Encode(*read), text);
  EXPECT_EQ(read->replica, "host:8001");
  EXPECT_EQ(read->arms[1].ttft_ms[2].count(), 7u);
  EXPECT_TRUE(read->mixed);
  for (size_t cut = 0; cut < text.size(); cut += 7) EXPECT_FALSE(DecodeWindow(text.substr(0, cut)).ok()) << cut;
  EXPECT_FALSE(DecodeWindow(text + " 1").ok());
  const auto with = [&text](std::string_view from, std::string_view to) {
    std::string changed = text;
    return std::string(DecodeWindow(changed.replace(changed.find(from), from.size(), to)).status().message());
  };
  EXPECT_EQ(with(" 12 10 3 ", " 12 10 11 "),
            "a window whose counts of an arm (failures and first users are events, events are requests) does not fit");
  EXPECT_EQ(with("1500000000", "nan"), "a window whose rss does not fit");
  EXPECT_EQ(with(" 150 ", " 10001 "), "a window whose share does not fit");
  EXPECT_NE(with("w1", "w2"), "");
  EXPECT_FALSE(DecodeWindow(std::string(kMaxWindowBytes + 1, ' ')).ok());
}

}  // namespace
}  // namespace sluice::rollout
