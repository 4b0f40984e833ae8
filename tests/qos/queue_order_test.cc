#include "qos/queue_order.h"

#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr MonoTime kNow{seconds(1000)};
constexpr Duration kStarvation = seconds(5);

// Who waits, by class: how long already, and its ticket.
QueueEnd Waited(Duration waited, uint64_t ticket) { return {kNow - waited, ticket}; }
QueueEnds Ends(std::optional<QueueEnd> system, std::optional<QueueEnd> interactive, std::optional<QueueEnd> standard,
               std::optional<QueueEnd> batch) {
  return {system, interactive, standard, batch};
}

TEST(EffectiveClassTest, OneClassForEachFullPeriod) {
  const auto batch_after = [](Duration waited) { return EffectiveClass(QosClass::kBatch, waited, kStarvation); };
  EXPECT_EQ(batch_after(Duration::zero()), QosClass::kBatch);
  EXPECT_EQ(batch_after(milliseconds(4999)), QosClass::kBatch);
  EXPECT_EQ(batch_after(milliseconds(5000)), QosClass::kStandard);
  EXPECT_EQ(batch_after(milliseconds(10000)), QosClass::kInteractive);
  EXPECT_EQ(batch_after(milliseconds(15000)), QosClass::kSystem);
  EXPECT_EQ(batch_after(std::chrono::hours(24)), QosClass::kSystem);
  EXPECT_EQ(batch_after(-seconds(60)), QosClass::kBatch);
  EXPECT_EQ(EffectiveClass(QosClass::kBatch, seconds(60), Duration::zero()), QosClass::kBatch) << "promotion is off";
}

// First come first served: the head of a class is its oldest.
std::optional<QosClass> NextClass(const QueueEnds& ends) {
  const std::optional<Next> next = NextInLine(ends, ends, kNow, kStarvation);
  return next ? std::optional(next->qos_class) : std::nullopt;
}

TEST(NextInLineTest, NobodyWaits) { EXPECT_EQ(NextClass({}), std::nullopt); }

TEST(NextInLineTest, ClassBeforeWaitingTime) {
  EXPECT_EQ(NextClass(Ends(Waited(seconds(0), 9), Waited(seconds(1), 8), Waited(seconds(4), 1), Waited(seconds(4), 2))),
            QosClass::kSystem);
  EXPECT_EQ(NextClass(Ends({}, {}, Waited(seconds(0), 9), Waited(seconds(4), 2))), QosClass::kStandard);
}

TEST(NextInLineTest, PromotedRequestWinsTheTieByArrival) {
  const QueueEnds ends = Ends({}, {}, Waited(milliseconds(4999), 2), Waited(seconds(5), 1));
  EXPECT_EQ(NextClass(ends), QosClass::kBatch);
  EXPECT_TRUE(NextInLine(ends, ends, kNow, kStarvation)->promoted);
  const QueueEnds too_early = Ends({}, {}, Waited(milliseconds(4990), 2), Waited(milliseconds(4999), 1));
  EXPECT_EQ(NextClass(too_early), QosClass::kStandard);
  EXPECT_FALSE(NextInLine(too_early, too_early, kNow, kStarvation)->promoted);
}

// A long request that others overtook has waited long: it passes other classes' heads, not shorter ones of its own.
TEST(NextInLineTest, TheOldestPassesOtherClassesOnly) {
  const QueueEnd long_one = Waited(seconds(6), 1), short_one = Waited(seconds(1), 5);
  const auto next = [](const QueueEnds& heads, const QueueEnds& oldest) {
    return NextInLine(heads, oldest, kNow, kStarvation)->ticket;
  };
  EXPECT_EQ(next(Ends({}, {}, {}, short_one), Ends({}, {}, {}, long_one)), 5u) << "inside a class its own order holds";
  const QueueEnd standard = Waited(seconds(2), 4), interactive = Waited(seconds(2), 4);
  EXPECT_EQ(next(Ends({}, {}, standard, short_one), Ends({}, {}, standard, long_one)), 1u) << "counts as standard";
  EXPECT_EQ(next(Ends({}, interactive, {}, short_one), Ends({}, interactive, {}, long_one)), 4u);
}

TEST(SizeOfTest, PowersOfTwo) {
  const auto size = [](double work) { return int{SizeOf(QueueOrder::kShortestFirst, work)}; };
  EXPECT_EQ(size(0), 0);
  EXPECT_EQ(size(1), 0);
  EXPECT_EQ(size(2), 1);
  EXPECT_EQ(size(1023), 9);
  EXPECT_EQ(size(1024), 10);
  EXPECT_EQ(size(1e300), 40);
  EXPECT_EQ(SizeOf(QueueOrder::kFcfs, 1024), 0);
}

TEST(GoesBeforeTest, WaitingPerSize) {
  EXPECT_TRUE(GoesBefore(seconds(1), 5, Duration::zero(), 5));
  EXPECT_TRUE(GoesBefore(seconds(1), 5, seconds(63), 8)) << "three powers of two: 64 times the waiting";
  EXPECT_FALSE(GoesBefore(seconds(1), 5, seconds(65), 8));
  EXPECT_TRUE(GoesBefore(Duration::zero(), 5, Duration::zero(), 8)) << "both new: the smaller";
  EXPECT_FALSE(GoesBefore(seconds(1), 5, seconds(1), 5)) << "the same: neither";
}

TEST(VictimClassTest, WorstClassThenNewest) {
  const QueueEnds ends = Ends(Waited(seconds(0), 4), {}, Waited(seconds(0), 6), Waited(seconds(0), 5));
  EXPECT_EQ(VictimClass(ends, QosClass::kInteractive, kNow, kStarvation), QosClass::kBatch);
  // Both effectively standard: the one that came last goes.
  const QueueEnds tie = Ends({}, {}, Waited(seconds(0), 6), Waited(seconds(5), 1));
  EXPECT_EQ(VictimClass(tie, QosClass::kInteractive, kNow, kStarvation), QosClass::kStandard);
}

TEST(VictimClassTest, OnlyStrictlyLessUrgentGivesWay) {
  const QueueEnds ends = Ends({}, {}, Waited(seconds(0), 1), {});
  EXPECT_EQ(VictimClass(ends, QosClass::kStandard, kNow, kStarvation), std::nullopt);
  EXPECT_EQ(VictimClass(ends, QosClass::kBatch, kNow, kStarvation), std::nullopt);
  EXPECT_EQ(VictimClass({}, QosClass::kSystem, kNow, kStarvation), std::nullopt);
}

TEST(VictimClassTest, PromotionProtects) {
  const QueueEnds promoted = Ends({}, {}, {}, Waited(seconds(10), 1));  // effectively interactive
  EXPECT_EQ(VictimClass(promoted, QosClass::kInteractive, kNow, kStarvation), std::nullopt);
  EXPECT_EQ(VictimClass(promoted, QosClass::kSystem, kNow, kStarvation), QosClass::kBatch);
}

TEST(EstimateRetryAfterTest, QueueTimesHoldOverLimitWithinBounds) {
  EXPECT_EQ(EstimateRetryAfter(seconds(2), 99, 100), seconds(2));
  EXPECT_EQ(EstimateRetryAfter(seconds(2), 49, 10), seconds(10));
  EXPECT_EQ(EstimateRetryAfter(milliseconds(1), 0, 100), milliseconds(100));
  EXPECT_EQ(EstimateRetryAfter(seconds(60), 1000, 1), seconds(30));
}

}  // namespace
}  // namespace sluice::qos
