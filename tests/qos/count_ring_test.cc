#include "qos/count_ring.h"

#include <deque>
#include <random>

#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

using Ring = CountRing<int64_t>;
using std::chrono::milliseconds;
using std::chrono::seconds;

MonoTime At(Duration d) { return MonoTime(d); }

TEST(CountRingTest, LastCalls) {
  Ring ring(Ring::Unit::kCalls, 3);
  for (int i = 1; i <= 5; ++i) ring.Add(i, At(seconds(i * 1000)));
  EXPECT_EQ(ring.total(), 3 + 4 + 5) << "time does not matter";
  ring.Advance(At(seconds(1'000'000)));
  EXPECT_EQ(ring.total(), 12);
}

TEST(CountRingTest, LastSeconds) {
  Ring ring(Ring::Unit::kSeconds, 3);
  ring.Add(1, At(milliseconds(10'999)));
  ring.Add(2, At(milliseconds(11'000)));
  ring.Add(4, At(milliseconds(12'500)));
  EXPECT_EQ(ring.total(), 7);
  ring.Advance(At(milliseconds(12'999)));
  EXPECT_EQ(ring.total(), 7);
  ring.Advance(At(milliseconds(13'000)));
  EXPECT_EQ(ring.total(), 6) << "second 10 has left";
  ring.Add(8, At(milliseconds(11'000)));
  EXPECT_EQ(ring.total(), 14) << "a step back counts into the newest bucket";
  ring.Advance(At(std::chrono::hours(24)));
  EXPECT_EQ(ring.total(), 0);
  ring.Add(1, At(std::chrono::hours(24)));
  EXPECT_EQ(ring.total(), 1);
}

TEST(CountRingTest, AgreesWithRecountingTheHistory) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int size = 1 + static_cast<int>(random() % 8);
    const auto unit = random() % 2 == 0 ? Ring::Unit::kCalls : Ring::Unit::kSeconds;
    Ring ring(unit, size);
    std::deque<std::pair<int64_t, int64_t>> history;  // second, count
    Duration now = seconds(random() % 100);
    for (int step = 0; step < 200; ++step) {
      now += milliseconds(random() % (random() % 10 == 0 ? 20'000 : 700));
      const int64_t second = std::chrono::floor<seconds>(now).count();
      if (random() % 3 != 0) {
        const auto count = static_cast<int64_t>(random() % 5);
        ring.Add(count, At(now));
        history.emplace_back(second, count);
      } else {
        ring.Advance(At(now));
      }
      int64_t want = 0;
      for (size_t i = 0; i < history.size(); ++i) {
        const bool in = unit == Ring::Unit::kCalls ? history.size() - i <= static_cast<size_t>(size)
                                                   : second - history[i].first < size;
        if (in) want += history[i].second;
      }
      ASSERT_EQ(ring.total(), want) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace sluice::qos
