#include "base/clock.h"

#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"

namespace sluice {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

TEST(ClockTest, SaturatingAddStopsAtTheInfiniteFuture) {
  const MonoTime now{std::chrono::seconds(5)};
  EXPECT_EQ(SaturatingAdd(now, milliseconds(3)), now + milliseconds(3));
  EXPECT_EQ(SaturatingAdd(now, milliseconds(-3)), now - milliseconds(3));
  EXPECT_EQ(SaturatingAdd(now, Duration::max()), kInfiniteFuture);
  EXPECT_EQ(SaturatingAdd(kInfiniteFuture, nanoseconds(1)), kInfiniteFuture);
  EXPECT_EQ(SaturatingAdd(kInfiniteFuture - nanoseconds(1), nanoseconds(1)), kInfiniteFuture);
}

TEST(ClockTest, MillisecondsConvertBothWays) {
  EXPECT_EQ(FromMillis(1.5), std::chrono::microseconds(1500));
  EXPECT_DOUBLE_EQ(ToMillis(std::chrono::microseconds(1500)), 1.5);
  EXPECT_DOUBLE_EQ(ToSeconds(milliseconds(250)), 0.25);
}

TEST(ClockTest, SystemClockNeverGoesBack) {
  const SystemClock clock;
  MonoTime last = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const MonoTime now = clock.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(ClockTest, ManualClockMovesOnlyWhenTold) {
  test::ManualClock clock;
  const MonoTime before = clock.Now();
  const WallTime wall = clock.WallNow();
  EXPECT_EQ(clock.Now(), before);
  clock.Advance(milliseconds(7));
  EXPECT_EQ(clock.Now() - before, milliseconds(7));
  EXPECT_EQ(clock.WallNow() - wall, milliseconds(7));
}

}  // namespace
}  // namespace sluice
