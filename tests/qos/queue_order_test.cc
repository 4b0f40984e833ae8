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

TEST(NextClassTest, NobodyWaits) { EXPECT_EQ(NextClass({}, kNow, kStarvation), std::nullopt); }

TEST(NextClassTest, ClassBeforeWaitingTime) {
  EXPECT_EQ(NextClass(Ends(Waited(seconds(0), 9), Waited(seconds(1), 8), Waited(seconds(4), 1), Waited(seconds(4), 2)),
                      kNow, kStarvation),
            QosClass::kSystem);
  EXPECT_EQ(NextClass(Ends({}, {}, Waited(seconds(0), 9), Waited(seconds(4), 2)), kNow, kStarvation),
            QosClass::kStandard);
}

TEST(NextClassTest, PromotedRequestWinsTheTieByArrival) {
  const QueueEnds ends = Ends({}, {}, Waited(milliseconds(4999), 2), Waited(seconds(5), 1));
  EXPECT_EQ(NextClass(ends, kNow, kStarvation), QosClass::kBatch);
  const QueueEnds too_early = Ends({}, {}, Waited(milliseconds(4990), 2), Waited(milliseconds(4999), 1));
  EXPECT_EQ(NextClass(too_early, kNow, kStarvation), QosClass::kStandard);
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
