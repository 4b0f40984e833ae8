#include "qos/policy_bucket.h"

#include <array>
#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

std::string Key(int i) { return fmt::format("user-{}", i); }

// These may never change: who is acted on would be drawn anew. Checked against an independent implementation in Python.
TEST(PolicyBucket, Golden) {
  EXPECT_EQ(StableHash(""), 0xefd01f60ba992926ULL);
  EXPECT_EQ(StableHash("foobar"), 0x2c22194922d1672bULL);
  EXPECT_EQ(PolicyBucket(StableHash("ttft"), StableHash("alice")), 9677u);
  EXPECT_EQ(PolicyBucket(StableHash("ttft"), StableHash("bob")), 4084u);
  EXPECT_EQ(PolicyBucket(StableHash("errors"), StableHash("alice")), 2740u);
  EXPECT_EQ(PolicyBucket(StableHash("same"), StableHash("same")), 2007u);
}

TEST(PolicyBucket, ThresholdsAreHundredthsOfAPercent) {
  EXPECT_EQ(PolicyThreshold(0), 0u);
  EXPECT_EQ(PolicyThreshold(0.01), 1u);
  EXPECT_EQ(PolicyThreshold(0.29), 29u) << "0.29 × 100 is 28.999… in floating point";
  EXPECT_EQ(PolicyThreshold(33.33), 3333u);
  EXPECT_EQ(PolicyThreshold(100), kPolicyBuckets);
  EXPECT_EQ(PolicyThreshold(-1), 0u);
  EXPECT_EQ(PolicyThreshold(1e9), kPolicyBuckets);
}

TEST(PolicyBucket, IsEvenAndGrowsByAddingOnly) {
  constexpr int kKeys = 100'000;
  std::array<int, 10> tenths{};
  for (int i = 0; i < kKeys; ++i) {
    const uint32_t bucket = PolicyBucket(StableHash("ttft"), StableHash(Key(i)));
    ASSERT_LT(bucket, kPolicyBuckets);
    ++tenths[bucket / 1000];
  }
  // Deterministic keys; four standard deviations of a fair draw are 380.
  for (const int n : tenths) EXPECT_NEAR(n, kKeys / 10, 380);
  for (int hundredths = 1; hundredths <= 10'000; ++hundredths) {
    ASSERT_EQ(PolicyThreshold(hundredths / 100.0), PolicyThreshold((hundredths - 1) / 100.0) + 1);
  }
}

TEST(PolicyBucket, PoliciesAreIndependent) {
  constexpr int kKeys = 100'000;
  int both = 0, first = 0;
  for (int i = 0; i < kKeys; ++i) {
    const uint64_t key = StableHash(Key(i));
    const bool a = PolicyBucket(StableHash("a"), key) < 3000, b = PolicyBucket(StableHash("b"), key) < 3000;
    first += a ? 1 : 0;
    both += a && b ? 1 : 0;
  }
  EXPECT_NEAR(both, first * 0.3, 500) << "30 % of 30 %, not all of it and not none";
}

}  // namespace
}  // namespace sluice::qos
