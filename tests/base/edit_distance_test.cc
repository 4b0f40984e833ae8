#include "base/edit_distance.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(EditDistanceTest, CountsEachKindOfSlipOnce) {
  EXPECT_EQ(EditDistance("", ""), 0U);
  EXPECT_EQ(EditDistance("", "abc"), 3U);
  EXPECT_EQ(EditDistance("slots", "slots"), 0U);
  EXPECT_EQ(EditDistance("slot", "slots"), 1U);
  EXPECT_EQ(EditDistance("slats", "slots"), 1U);
  EXPECT_EQ(EditDistance("solts", "slots"), 1U);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3U);
}

}  // namespace
}  // namespace sluice
