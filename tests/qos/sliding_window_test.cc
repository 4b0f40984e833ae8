#include "qos/sliding_window.h"

#include <cstdio>
#include <map>
#include <random>

#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Count {
  int64_t n = 0;
  void Merge(const Count& other) { n += other.n; }
};

MonoTime At(int64_t ms) { return MonoTime(milliseconds(ms)); }

TEST(SlidingWindow, ForgetsSliceBySlice) {
  SlidingWindow<Count> window(seconds(12), At(0));
  for (int64_t ms = 0; ms < 12'000; ms += 500) window.At(At(ms))->n += 1;
  EXPECT_EQ(window.Total(At(11'999)).n, 24);
  EXPECT_EQ(window.Total(At(12'000)).n, 22) << "the first second fell out";
  EXPECT_EQ(window.Total(At(17'999)).n, 12);
  EXPECT_EQ(window.Total(At(22'999)).n, 2);
  EXPECT_EQ(window.Total(At(23'000)).n, 0);
  EXPECT_EQ(window.Total(At(1'000'000)).n, 0);
}

TEST(SlidingWindow, CoversWhatItSays) {
  SlidingWindow<Count> window(seconds(12), At(100'500));
  EXPECT_EQ(window.Covered(At(100'500)), Duration::zero());
  EXPECT_EQ(window.Covered(At(103'000)), milliseconds(2500)) << "since it is there";
  EXPECT_EQ(window.Covered(At(200'000)), seconds(11));
  EXPECT_EQ(window.Covered(At(200'999)), milliseconds(11'999));
}

TEST(SlidingWindow, TooOldIsRefusedLateIsNot) {
  SlidingWindow<Count> window(seconds(12), At(0));
  window.At(At(30'000))->n += 1;
  ASSERT_NE(window.At(At(29'000)), nullptr);
  window.At(At(29'000))->n += 1;
  EXPECT_EQ(window.At(At(18'000)), nullptr) << "its place holds second 30";
  EXPECT_EQ(window.Total(At(30'000)).n, 2);
}

// Against a list of all events.
TEST(SlidingWindow, AgreesWithEverythingKept) {
  constexpr uint32_t kSeed = 7;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  SlidingWindow<Count> window(seconds(6), At(5000));
  std::map<int64_t, int64_t> seen;  // by ms
  int64_t now = 5000;
  for (int i = 0; i < 5000; ++i) {
    now += random() % 50 == 0 ? static_cast<int64_t>(random() % 20'000) : static_cast<int64_t>(random() % 200);
    if (random() % 3 != 0) {
      window.At(At(now))->n += 1;
      ++seen[now];
    }
    int64_t expected = 0;
    const int64_t oldest = (now / 500 - 11) * 500;
    for (auto it = seen.lower_bound(oldest); it != seen.end(); ++it) expected += it->second;
    ASSERT_EQ(window.Total(At(now)).n, expected) << "step " << i;
  }
}

}  // namespace
}  // namespace sluice::qos
