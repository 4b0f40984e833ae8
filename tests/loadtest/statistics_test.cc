#include "loadtest/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace sluice::loadtest {
namespace {

std::vector<double> OneTo(int n) {
  std::vector<double> values;
  for (int i = 1; i <= n; ++i) values.push_back(i);
  return values;
}

TEST(Statistics, PercentilesAreNumpysLinearOnes) {
  EXPECT_DOUBLE_EQ(Percentile(OneTo(100), 0.95), 95.05);  // numpy.percentile(range(1, 101), 95)
  EXPECT_DOUBLE_EQ(Percentile({1, 2}, 0.5), 1.5);
  EXPECT_DOUBLE_EQ(Percentile({7}, 0.99), 7);
  EXPECT_TRUE(std::isnan(Percentile({}, 0.5)));
}

TEST(Statistics, MedianIntervalHasTheTabulatedRanks) {
  // n = 100: ranks 40 and 61 enclose the median with 95 % (e.g. Conover, Practical Nonparametric Statistics, §3.2).
  const Estimate median = PercentileEstimate(OneTo(100), 0.5);
  EXPECT_DOUBLE_EQ(median.low, 40);
  EXPECT_DOUBLE_EQ(median.high, 61);
}

TEST(Statistics, TooFewSamplesHaveAnOpenEnd) {
  EXPECT_TRUE(std::isinf(PercentileEstimate(OneTo(50), 0.99).high));
  EXPECT_FALSE(std::isinf(PercentileEstimate(OneTo(1000), 0.95).high));
}

// The share of intervals that hold the truth, over many samples: 95 % within what 400 draws allow.
template <typename Draw, typename Interval>
double Coverage(double truth, Draw draw, Interval interval) {
  int held = 0;
  constexpr int kRuns = 400;
  for (int run = 0; run < kRuns; ++run) {
    std::mt19937_64 random(static_cast<uint64_t>(run) + 1);
    const Estimate e = interval(draw(random));
    held += e.low <= truth && truth <= e.high ? 1 : 0;
  }
  return static_cast<double>(held) / kRuns;
}

std::vector<double> Exponential(std::mt19937_64& random, int n) {
  std::exponential_distribution<double> draw(1);
  std::vector<double> values(static_cast<size_t>(n));
  for (double& v : values) v = draw(random);
  std::sort(values.begin(), values.end());
  return values;
}

TEST(Statistics, PercentileIntervalsHoldTheTruth95PercentOfTheTime) {
  const double p95 = Coverage(
      -std::log(0.05), [](auto& random) { return Exponential(random, 500); },
      [](const auto& sample) { return PercentileEstimate(sample, 0.95); });
  EXPECT_GE(p95, 0.92);
  EXPECT_LE(p95, 0.985);
}

TEST(Statistics, MeanIntervalsHoldTheTruth) {
  const double coverage = Coverage(
      1, [](auto& random) { return Exponential(random, 200); },
      [](const auto& sample) { return MeanEstimate(sample); });
  EXPECT_GE(coverage, 0.91);
  EXPECT_LE(coverage, 0.985);
}

TEST(Statistics, ShareIntervalIsWilsons) {
  const Estimate share = ShareEstimate(10, 100);
  EXPECT_NEAR(share.low, 0.0552, 1e-4);  // Wilson score interval of 10/100
  EXPECT_NEAR(share.high, 0.1744, 1e-4);
  EXPECT_EQ(ShareEstimate(0, 50).low, 0);
  EXPECT_GT(ShareEstimate(0, 50).high, 0.05);
  EXPECT_FALSE(ShareEstimate(0, 0).known());
}

TEST(Statistics, GroupedPercentileKnowsThatGapsOfARequestGoTogether) {
  // Each group is one constant: 50 independent values, however many gaps there are.
  std::mt19937_64 random(5);
  std::uniform_real_distribution<float> draw(0, 1);
  std::vector<std::vector<float>> groups;
  std::vector<double> pooled;
  for (int g = 0; g < 50; ++g) {
    groups.emplace_back(100, draw(random));
    pooled.insert(pooled.end(), groups.back().begin(), groups.back().end());
  }
  std::sort(pooled.begin(), pooled.end());
  const Estimate grouped = GroupedPercentile(groups, 0.5, 1), naive = PercentileEstimate(pooled, 0.5);
  EXPECT_DOUBLE_EQ(grouped.value, naive.value);
  EXPECT_GT(grouped.high - grouped.low, 3 * (naive.high - naive.low));
}

TEST(Statistics, PairedRatioRemovesWhatPairsHaveInCommon) {
  // The machine's speed changes from pair to pair by far more than the arms differ.
  const std::vector<double> slow = {115, 232, 57.4, 402, 86.1}, fast = {100, 200, 50, 350, 75};
  const Estimate ratio = PairedRatio(slow, fast);
  EXPECT_NEAR(ratio.value, 1.15, 0.01);
  EXPECT_GT(ratio.low, 1.1);
  EXPECT_LT(ratio.high, 1.2);
  EXPECT_LT(UnpairedRatio(slow, fast).low, 1);
  EXPECT_FALSE(PairedRatio({1}, {1}).has_interval());
  EXPECT_FALSE(PairedRatio({0, 1}, {1, 1}).known());
}

TEST(Statistics, SlopesOfALineAndOfNoise) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise(0, 5);
  std::vector<double> x, line, flat;
  for (int i = 0; i < 200; ++i) {
    x.push_back(i);
    line.push_back(0.5 * i + noise(random));
    flat.push_back(noise(random));
  }
  EXPECT_NEAR(Slope(x, line).value, 0.5, 0.05);
  EXPECT_GT(Slope(x, line).low, 0.4);
  EXPECT_NEAR(TheilSen(x, line).value, 0.5, 0.05);
  EXPECT_GT(TheilSen(x, line).low, 0.4);
  EXPECT_LT(TheilSen(x, flat).low, 0);
  EXPECT_GT(TheilSen(x, flat).high, 0);
  // One wild outlier moves least squares, not Theil–Sen.
  line[199] = 1e6;
  EXPECT_NEAR(TheilSen(x, line).value, 0.5, 0.05);
  EXPECT_FALSE(Slope({1, 2}, {1, 2}).known());
}

}  // namespace
}  // namespace sluice::loadtest
