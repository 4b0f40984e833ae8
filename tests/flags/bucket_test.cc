#include "flags/bucket.h"

#include <cmath>
#include <string>
#include <vector>

#include "flags/flag.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace sluice::flags {
namespace {

// Computed with Python:
//   v2 = int.from_bytes(hashlib.md5((salt + "-" + key).encode()).digest()[:4], "big") % 10000
//   v1 = int(hashlib.md5((key + salt).encode()).hexdigest()[:8], 16) % 100
TEST(BucketTest, GoldenVectors) {
  struct Vector {
    std::string salt, key;
    uint32_t v2, v1;
  };
  const std::vector<Vector> vectors = {
      {"ttft-pipeline-2025-01-08", "alice", 4013, 33},
      {"ttft-pipeline-2025-01-08", "bob", 3092, 6},
      {"phase5", "user-1", 3065, 79},
      {"phase5", "user-2", 5907, 5},
      {"", "x", 926, 9},
      {"a", "b-c", 1133, 76},
      {"a-b", "c", 1133, 83},  // the recipe's known ambiguity: the same bytes as the line above
      {"salt", "j\xc3\xbcrgen \xe2\x98\x83", 4050, 1},
      {"qos_policy", std::string(200, '0'), 4214, 61},
      {"s", std::string(1, '\0'), 7577, 93},
      {"split-exp", "alice", 3063, 75},
  };
  for (const Vector& v : vectors) {
    EXPECT_EQ(BucketV2(v.salt, v.key), v.v2) << v.salt << " " << v.key;
    EXPECT_EQ(BucketV1(v.salt, v.key), v.v1) << v.salt << " " << v.key;
  }
}

// Chi-square over equal cells; the bound is mean + 4 standard deviations of the distribution.
double ChiSquare(const std::vector<int>& observed, double expected) {
  double sum = 0;
  for (const int n : observed) sum += (n - expected) * (n - expected) / expected;
  return sum;
}
double Bound(size_t cells) {
  const double freedom = static_cast<double>(cells) - 1;
  return freedom + 4 * std::sqrt(2 * freedom);
}

TEST(BucketTest, UniformOverRealisticKeys) {
  constexpr int kKeys = 200000;
  std::vector<int> v2(kBuckets), v1(100);
  for (int i = 0; i < kKeys; ++i) {
    const std::string key = fmt::format("user-{}", i);
    const uint32_t bucket = BucketV2("ttft_pipeline", key);
    ASSERT_LT(bucket, kBuckets);
    ++v2[bucket];
    ++v1.at(BucketV1("ttft_pipeline", key));
  }
  EXPECT_LT(ChiSquare(v2, kKeys / 1.0 / v2.size()), Bound(v2.size()));
  EXPECT_LT(ChiSquare(v1, kKeys / 1.0 / v1.size()), Bound(v1.size()));
}

// Who is early in one rollout must not be early in the next: the joint distribution of two salts is uniform too.
TEST(BucketTest, SaltsAreIndependent) {
  constexpr int kKeys = 200000, kCells = 20;
  std::vector<int> joint(kCells * kCells);
  for (int i = 0; i < kKeys; ++i) {
    const std::string key = fmt::format("user-{}", i);
    const uint32_t a = BucketV2("phase5", key) * kCells / kBuckets, b = BucketV2("qos_policy", key) * kCells / kBuckets;
    ++joint[a * kCells + b];
  }
  EXPECT_LT(ChiSquare(joint, kKeys / 1.0 / joint.size()), Bound(joint.size()));
}

}  // namespace
}  // namespace sluice::flags
