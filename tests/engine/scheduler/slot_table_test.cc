#include "engine/scheduler/slot_table.h"

#include <vector>

#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

std::vector<Slot> Slots(int n) { return std::vector<Slot>(n); }
Slot Idle(int computed, uint64_t last_used) { return {.computed = computed, .last_used = last_used}; }
Slot Busy(int computed) { return {.in_use = true, .computed = computed}; }

TEST(SlotTableTest, EmptySlotsAreFilledFromTheLowest) {
  auto slots = Slots(3);
  slots[0] = Busy(10);
  const Placement p = PlaceSequence(slots, {}, 50, 16, true);
  EXPECT_EQ(p.slot, 1);
  EXPECT_EQ(p.reused, 0);
}

TEST(SlotTableTest, OtherwiseTheOneLeftLongestAgo) {
  const std::vector<Slot> slots = {Idle(100, 7), Idle(100, 3), Busy(5), Idle(100, 5)};
  EXPECT_EQ(PlaceSequence(slots, {}, 50, 16, true).slot, 1);
}

TEST(SlotTableTest, NextTurnOfAConversationTakesItsSlotOver) {
  const std::vector<Slot> slots = {Idle(0, 0), Idle(200, 1)};
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 1, .length = 195}};
  const Placement p = PlaceSequence(slots, matches, 300, 16, true);
  EXPECT_EQ(p.slot, 1);
  EXPECT_EQ(p.copy_from, -1);
  EXPECT_EQ(p.reused, 195);
}

TEST(SlotTableTest, ASharedSystemPromptIsCopiedSoThatItsOwnerKeepsTheRest) {
  const std::vector<Slot> slots = {Idle(0, 0), Idle(500, 1)};
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 1, .length = 100}};
  const Placement p = PlaceSequence(slots, matches, 300, 16, true);
  EXPECT_EQ(p.slot, 0);
  EXPECT_EQ(p.copy_from, 1);
  EXPECT_EQ(p.reused, 100);
}

TEST(SlotTableTest, ARunningSequenceIsCopiedFromAsFarAsItIsComputed) {
  const std::vector<Slot> slots = {Busy(64), Idle(0, 0)};
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 0, .length = 100}};
  const Placement p = PlaceSequence(slots, matches, 300, 16, true);
  EXPECT_EQ(p.slot, 1);
  EXPECT_EQ(p.copy_from, 0);
  EXPECT_EQ(p.reused, 64);
}

TEST(SlotTableTest, ShortPrefixesAndForbiddenCopiesAreComputed) {
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 0, .length = 100}};
  EXPECT_EQ(PlaceSequence(std::vector<Slot>{Busy(10), Idle(0, 0)}, matches, 300, 16, true).reused, 0);
  EXPECT_EQ(PlaceSequence(std::vector<Slot>{Busy(64), Idle(0, 0)}, matches, 300, 16, false).reused, 0);
}

TEST(SlotTableTest, TheLastPromptTokenIsAlwaysComputed) {
  const std::vector<Slot> slots = {Idle(100, 1)};
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 0, .length = 100}};
  EXPECT_EQ(PlaceSequence(slots, matches, 100, 16, true).reused, 99);
  EXPECT_EQ(FindReusable(slots, matches, 100).now, 99);
}

TEST(SlotTableTest, UpcomingCountsOnlyRunningOwners) {
  const std::vector<Slot> slots = {Busy(10), Idle(20, 1)};
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 0, .length = 100}, {.sequence = 1, .length = 80}};
  const Reusable r = FindReusable(slots, matches, 300);
  EXPECT_EQ(r.now, 20);
  EXPECT_EQ(r.upcoming, 100);
}

TEST(SlotTableTest, WhenOnlyTheSourceIsFreeItIsTakenOver) {
  const std::vector<Slot> slots = {Busy(10), Idle(500, 1)};
  const std::vector<PrefixIndex::Match> matches = {{.sequence = 1, .length = 100}};
  const Placement p = PlaceSequence(slots, matches, 300, 16, true);
  EXPECT_EQ(p.slot, 1);
  EXPECT_EQ(p.copy_from, -1);
  EXPECT_EQ(p.reused, 100);
}

}  // namespace
}  // namespace sluice::engine
