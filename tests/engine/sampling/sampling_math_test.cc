#include "engine/sampling/sampling_math.h"

#include <cmath>

#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

TEST(SamplingMathTest, ExpMatchesLibmWithinAMillionth) {
  EXPECT_EQ(ExpNonPositive(0.0F), 1.0F);
  for (int i = 0; i <= 870'000; ++i) {
    const float x = -static_cast<float>(i) * 1e-4F;
    const double want = std::exp(static_cast<double>(x));
    ASSERT_NEAR(ExpNonPositive(x) / want, 1.0, 1e-6) << x;
    ASSERT_LE(ExpNonPositive(x), 1.0F) << x;
  }
  EXPECT_EQ(FixedWeight(ExpNonPositive(kMinusInfinity)), 0u);
  EXPECT_EQ(FixedWeight(ExpNonPositive(-1e30F)), 0u);
}

TEST(SamplingMathTest, CleanLogitRemovesWhatBreaksArithmetic) {
  EXPECT_EQ(CleanLogit(std::nanf("")), kMinusInfinity);
  EXPECT_EQ(CleanLogit(-kMinusInfinity), kLargestFloat);
  EXPECT_EQ(CleanLogit(kMinusInfinity), kMinusInfinity);
  EXPECT_EQ(CleanLogit(-3.5F), -3.5F);
}

TEST(SamplingMathTest, SplitMixGivesItsPublishedSequence) {
  SplitMix64 random(1234567);  // reference values of the original C program
  EXPECT_EQ(random.Next(), 6457827717110365317U);
  EXPECT_EQ(random.Next(), 3203168211198807973U);
  EXPECT_EQ(random.Next(), 9817491932198370423U);
}

TEST(SamplingMathTest, DoublesAreUniformBelowOne) {
  SplitMix64 random(7);
  int deciles[10] = {};
  for (int i = 0; i < 100'000; ++i) {
    const double x = random.NextDouble();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    ++deciles[static_cast<int>(x * 10)];
  }
  for (const int n : deciles) EXPECT_NEAR(n, 10'000, 500);
}

}  // namespace
}  // namespace sluice::engine
