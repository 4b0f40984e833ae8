#include "base/sketch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr uint32_t kSeed = 20261123;
// The bound of the paper, and a little for the rounding of log and pow.
constexpr double kBound = Sketch::kRelativeError * (1 + 1e-6);

double Exact(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

Sketch Of(const std::vector<double>& values) {
  Sketch sketch;
  for (const double value : values) sketch.Add(value);
  return sketch;
}

// Values of several shapes: what latencies look like, and what they never do.
std::vector<std::vector<double>> Shapes(std::mt19937& random) {
  std::lognormal_distribution<double> lognormal(5, 1.5);
  std::uniform_real_distribution<double> uniform(0.5, 2000);
  std::exponential_distribution<double> exponential(0.01);
  std::vector<std::vector<double>> shapes(5);
  for (int i = 0; i < 20'000; ++i) {
    shapes[0].push_back(lognormal(random));
    shapes[1].push_back(uniform(random));
    shapes[2].push_back(exponential(random));
    shapes[3].push_back(i % 10 == 0 ? 60'000 : 3);  // two modes
    shapes[4].push_back(42);
  }
  return shapes;
}

TEST(Sketch, QuantilesAreWithinTheRelativeError) {
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  for (const std::vector<double>& values : Shapes(random)) {
    const Sketch sketch = Of(values);
    ASSERT_EQ(sketch.count(), values.size());
    for (const double q : {0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0}) {
      const double exact = Exact(values, q);
      EXPECT_NEAR(sketch.Quantile(q), exact, exact * kBound) << "q " << q << " of values like " << values[0];
    }
  }
}

TEST(Sketch, SmallSetsToo) {
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  std::lognormal_distribution<double> values_of(0, 2);
  for (size_t n = 1; n <= 60; ++n) {
    std::vector<double> values(n);
    for (double& value : values) value = values_of(random);
    const Sketch sketch = Of(values);
    for (double q = 0; q <= 1; q += 0.05) {
      EXPECT_NEAR(sketch.Quantile(q), Exact(values, q), Exact(values, q) * kBound) << n << " values, q " << q;
    }
  }
}

// Forms but for the sum, whose rounding depends on the order.
void ExpectSame(const Sketch& a, const Sketch& b) {
  Sketch::Form form_a = a.ToForm(), form_b = b.ToForm();
  EXPECT_NEAR(form_a.sum, form_b.sum, std::abs(form_b.sum) * 1e-12);
  form_a.sum = form_b.sum = 0;
  EXPECT_EQ(form_a, form_b);
}

TEST(Sketch, MergeIsUnion) {
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  std::uniform_real_distribution<double> exponent(-8, 14);  // wider than the buckets reach: collapsing must not matter
  for (int round = 0; round < 200; ++round) {
    Sketch all;
    std::vector<Sketch> parts(1 + random() % 12);
    for (int i = 0; i < 300; ++i) {
      const double value = random() % 20 == 0 ? 0 : std::pow(10, exponent(random));
      all.Add(value);
      parts[random() % parts.size()].Add(value);
    }
    std::shuffle(parts.begin(), parts.end(), random);
    Sketch merged;
    for (const Sketch& part : parts) merged.Merge(part);
    ExpectSame(merged, all);
    EXPECT_EQ(merged.count(), all.count());
    EXPECT_EQ(merged.min(), all.min());
    EXPECT_EQ(merged.max(), all.max());
    if (HasFailure()) FAIL() << "round " << round;
  }
}

TEST(Sketch, EmptyAndZero) {
  Sketch sketch;
  EXPECT_EQ(sketch.count(), 0u);
  EXPECT_EQ(sketch.Quantile(0.5), 0);
  sketch.Merge(Sketch());
  EXPECT_EQ(sketch.count(), 0u);
  sketch.Add(std::numeric_limits<double>::quiet_NaN());
  sketch.Add(5, 0);
  EXPECT_EQ(sketch.count(), 0u);
  sketch.Add(-3);
  sketch.Add(0);
  sketch.Add(10, 2);
  EXPECT_EQ(sketch.count(), 4u);
  EXPECT_EQ(sketch.sum(), 20);
  EXPECT_EQ(sketch.min(), 0);
  EXPECT_EQ(sketch.max(), 10);
  EXPECT_EQ(sketch.Quantile(0.3), 0);
  EXPECT_NEAR(sketch.Quantile(0.9), 10, 10 * kBound);
  EXPECT_NEAR(sketch.Quantile(7), 10, 10 * kBound) << "clamped";
}

TEST(Sketch, MemoryIsBoundedAndTheUpperQuantilesKeepTheirBound) {
  Sketch sketch;
  std::vector<double> values;
  for (double value = 1e-8; value < 1e14; value *= 1.01) {
    sketch.Add(value);
    values.push_back(value);
  }
  sketch.Add(std::numeric_limits<double>::infinity());
  values.push_back(Sketch::kLargest);
  const Sketch::Form form = sketch.ToForm();
  EXPECT_LE(form.buckets.size(), Sketch::kMaxBuckets);
  EXPECT_EQ(form.buckets.back().first - form.buckets.front().first, static_cast<int>(Sketch::kMaxBuckets) - 1);
  EXPECT_EQ(sketch.count(), values.size());
  EXPECT_EQ(sketch.max(), Sketch::kLargest);
  for (const double q : {0.65, 0.9, 0.99}) {
    EXPECT_NEAR(sketch.Quantile(q), Exact(values, q), Exact(values, q) * kBound) << q;
  }
  EXPECT_GT(sketch.Quantile(0.1), Exact(values, 0.1) * 10) << "collapsed: too large, never too small";
}

TEST(Sketch, FormsRoundTrip) {
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  for (const std::vector<double>& values : Shapes(random)) {
    const Sketch sketch = Of(values);
    const Sketch again = Sketch::FromForm(sketch.ToForm());
    EXPECT_EQ(again.ToForm(), sketch.ToForm());
    EXPECT_EQ(again.count(), sketch.count());
    EXPECT_EQ(again.Quantile(0.95), sketch.Quantile(0.95));
  }
  EXPECT_EQ(Sketch::FromForm({}).ToForm(), Sketch().ToForm());
}

TEST(Sketch, DamagedFormsStayInBounds) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const Sketch sketch = Sketch::FromForm(
      {.sum = nan, .min = nan, .max = -inf, .buckets = {{2'000'000'000, 5}, {-2'000'000'000, 5}, {0, 0}, {7, 1}}});
  EXPECT_EQ(sketch.count(), 11u);
  EXPECT_LE(sketch.ToForm().buckets.size(), Sketch::kMaxBuckets);
  for (const double q : {0.0, 0.5, 1.0}) {
    EXPECT_TRUE(std::isfinite(sketch.Quantile(q))) << q;
  }
}

TEST(Sketch, CountsWhatLiesAboveABucket) {
  Sketch sketch;
  sketch.Add(0, 5);
  for (int i = 1; i <= 1000; ++i) sketch.Add(i);
  for (const double at : {1.0, 7.0, 500.0, 999.0}) {
    const int bucket = Sketch::BucketOf(at);
    const double bound = Sketch::UpperBound(bucket);
    EXPECT_GE(bound, at);
    EXPECT_LE(bound, at * 1.0203);
    EXPECT_EQ(sketch.CountAbove(bucket), 1000 - std::min<uint64_t>(1000, static_cast<uint64_t>(bound))) << at;
  }
  EXPECT_EQ(sketch.CountAbove(Sketch::BucketOf(2000)), 0u);
  EXPECT_EQ(sketch.CountAbove(Sketch::BucketOf(1e-6)), 1000u);
  EXPECT_EQ(Sketch().CountAbove(0), 0u);
}

}  // namespace
}  // namespace sluice
