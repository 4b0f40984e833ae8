#include "qos/decision_log.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice::qos {
namespace {

DecisionRecord Decision(const std::string& request_id, const std::string& verdict, const std::string& dry_run = "") {
  return {.request_id = request_id, .tenant = "acme", .model = "default", .verdict = verdict, .dry_run = dry_run};
}

std::vector<std::string> Ids(const std::vector<DecisionRecord>& records) {
  std::vector<std::string> ids;
  for (const DecisionRecord& r : records) ids.push_back(r.request_id);
  return ids;
}

class Collector final : public QosObserver {
 public:
  void Recorded(const QosRecord& record) override { records.push_back(record); }
  std::vector<QosRecord> records;
};

TEST(DecisionLog, ShowsTheNewestFirstAndForgetsTheOldest) {
  DecisionLog log(3, nullptr);
  EXPECT_TRUE(log.Newest({}, 10).empty());
  for (int i = 1; i <= 5; ++i) log.Add(Decision("r" + std::to_string(i), "admitted"));
  EXPECT_EQ(Ids(log.Newest({}, 10)), (std::vector<std::string>{"r5", "r4", "r3"}));
  EXPECT_EQ(Ids(log.Newest({}, 1)), (std::vector<std::string>{"r5"}));
  EXPECT_EQ(log.Newest({}, 1)[0].id, 5U);
}

TEST(DecisionLog, FiltersByWhoWhatAndWhy) {
  DecisionLog log(10, nullptr);
  log.Add(Decision("a", "admitted", "shed:slow,max_tokens=64:long"));
  log.Add(Decision("b", "QUEUE_FULL"));
  log.Add(Decision("c", "admitted", "shed:slower"));
  EXPECT_EQ(Ids(log.Newest({.verdict = "admitted"}, 10)), (std::vector<std::string>{"c", "a"}));
  EXPECT_EQ(Ids(log.Newest({.policy = "slow"}, 10)), (std::vector<std::string>{"a"})) << "not its longer namesake";
  EXPECT_EQ(Ids(log.Newest({.policy = "long"}, 10)), (std::vector<std::string>{"a"}));
  EXPECT_EQ(Ids(log.Newest({.request_id = "b"}, 10)), (std::vector<std::string>{"b"}));
  EXPECT_TRUE(log.Newest({.tenant = "other"}, 10).empty());
}

TEST(DecisionLog, TheObserverGetsEverythingInOrder) {
  Collector collector;
  DecisionLog log(1, &collector);
  log.Add(Decision("a", "admitted"));
  log.Add(OutcomeRecord{.request_id = "a"});
  log.Add(JudgementRecord{.state = {.running = 3}});
  log.Add(Decision("b", "admitted"));
  ASSERT_EQ(collector.records.size(), 4U);
  EXPECT_EQ(std::get<DecisionRecord>(collector.records[0]).id, 1U);
  EXPECT_EQ(std::get<OutcomeRecord>(collector.records[1]).request_id, "a");
  EXPECT_EQ(std::get<JudgementRecord>(collector.records[2]).state.running, 3);
  EXPECT_EQ(std::get<DecisionRecord>(collector.records[3]).id, 2U);
}

TEST(DecisionLog, ActionsReadAsWhatAndWho) {
  EXPECT_EQ(ExplainActions({}), "");
  EXPECT_EQ(ExplainActions({.shed_by = "p1",
                            .max_tokens_by = "p2",
                            .max_tokens = 64,
                            .pipeline_by = "p3",
                            .pipeline = "baseline",
                            .upstream_by = "p4",
                            .upstream = "big"}),
            "shed:p1,max_tokens=64:p2,pipeline=baseline:p3,upstream=big:p4");
}

}  // namespace
}  // namespace sluice::qos
