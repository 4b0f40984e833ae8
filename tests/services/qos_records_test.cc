#include "services/qos_records.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/metrics.h"
#include "services/decision_file.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice::services {
namespace {

using qos::DecisionRecord;
using qos::JudgementRecord;
using qos::OutcomeRecord;
using qos::QosRecord;
using test::IsOk;
using test::ManualClock;
using test::TempFolder;

DecisionRecord FullDecision() {
  return {.id = 7,
          .at = MonoTime(Duration(123456789012345)),
          .wall = WallTime(Duration(1790000000123456789)),
          .request_id = "r-1 \"quoted\" \xC3\xA9",
          .tenant = "acme",
          .model = "default",
          .qos_class = qos::QosClass::kBatch,
          .key_hash = 0xFFFFFFFFFFFFFFF1U,
          .prompt_tokens = 120,
          .max_tokens = 256,
          .prompt_bytes = 480,
          .time_left = std::chrono::milliseconds(1500),
          .ttft_objective = std::chrono::milliseconds(250),
          .load = {.slots = 8,
                   .running = 3,
                   .waiting = 2,
                   .uncomputed_prompt_tokens = 900,
                   .prefill_tokens_per_second = 1234.5,
                   .decode_tokens_per_second = 301.25,
                   .kv_usage = 0.125},
          .use = qos::PolicyUse::kEnforce,
          .verdict = "admitted",
          .enforced = "max_tokens=64:slow",
          .dry_run = "shed:other",
          .granted_max_tokens = 64,
          .epoch = 3};
}

OutcomeRecord FullOutcome() {
  OutcomeRecord r{.request_id = "r-1", .tenant = "acme", .model = "default"};
  r.outcome.qos_class = qos::QosClass::kInteractive;
  r.outcome.ended = MonoTime(Duration(999));
  r.outcome.failed = true;
  r.outcome.ttft = std::chrono::nanoseconds(1);
  r.outcome.latency = std::chrono::milliseconds(20);
  r.outcome.output_tokens = 12;
  return r;
}

// One line → record → line: nothing is lost when it is written again.
TEST(QosRecords, EveryFieldSurvives) {
  TempFolder folder;
  const std::vector<QosRecord> records = {
      FullDecision(), DecisionRecord{}, FullOutcome(),
      JudgementRecord{.at = MonoTime(Duration(5)), .state = {.running = 3, .queued = 0, .kv_usage = 0.1, .cpu = 0.7}}};
  std::string text = EncodeQosStart(WallTime(Duration(1))) + "\n";
  for (const QosRecord& record : records) text += EncodeQosRecord(record) + "\n";
  const std::string path = folder / "log.jsonl";
  ASSERT_THAT(WriteTextFile(path, text), IsOk());
  std::vector<std::string> lines;
  const auto summary = ReadQosLog(path, [&](const QosRecord& r) { lines.push_back(EncodeQosRecord(r)); });
  ASSERT_THAT(summary.status(), IsOk());
  ASSERT_EQ(lines.size(), records.size());
  for (size_t i = 0; i < records.size(); ++i) EXPECT_EQ(lines[i], EncodeQosRecord(records[i])) << i;
  EXPECT_EQ(summary->sections, 1U);
  EXPECT_FALSE(summary->torn);
}

TEST(QosRecords, ReadsTheLastProcessAndLeavesATornLineOut) {
  TempFolder folder;
  const std::string path = folder / "log.jsonl";
  const std::string start = EncodeQosStart(WallTime{}) + "\n";
  const std::string outcome = EncodeQosRecord(FullOutcome()) + "\n";
  ASSERT_THAT(WriteTextFile(path, start + outcome + outcome + start + outcome + outcome.substr(0, outcome.size() / 2)),
              IsOk());
  size_t n = 0;
  const auto summary = ReadQosLog(path, [&](const QosRecord&) { ++n; });
  ASSERT_THAT(summary.status(), IsOk());
  EXPECT_EQ(n, 1U);
  EXPECT_EQ(summary->sections, 2U);
  EXPECT_TRUE(summary->torn);
}

TEST(QosRecords, SaysWhichLineIsWrong) {
  TempFolder folder;
  const std::string path = folder / "log.jsonl";
  const auto refused = [&](const std::string& line) {
    EXPECT_THAT(WriteTextFile(path, EncodeQosStart(WallTime{}) + "\n" + line + "\n"), IsOk());
    return std::string(ReadQosLog(path, [](const QosRecord&) {}).status().message());
  };
  EXPECT_EQ(refused(R"({"kind":"guess"})"),
            path + ":2: there is no kind 'guess'; known: start, decision, outcome, judgement");
  EXPECT_NE(refused("not json").find(path + ":2: "), std::string::npos);
  EXPECT_NE(refused(R"({"kind":"judgement","at_ns":1})").find("key 'running' not found"), std::string::npos);
  EXPECT_TRUE(absl::IsNotFound(ReadQosLog(folder / "none", [](const QosRecord&) {}).status()));
}

class DecisionFileTest : public testing::Test {
 protected:
  std::string Path() const { return folder_ / "decisions.jsonl"; }
  double Count(const std::string& result) {
    for (const MetricFamily& family : metrics_.Collect()) {
      if (family.name != "sluice_qos_decision_log_records_total") continue;
      for (const MetricSample& sample : family.samples) {
        if (sample.label_values[0] == result) return sample.value;
      }
    }
    return -1;
  }
  size_t Records(const std::string& path) {
    size_t n = 0;
    EXPECT_THAT(ReadQosLog(path, [&n](const QosRecord&) { ++n; }).status(), IsOk());
    return n;
  }

  TempFolder folder_;
  ManualClock clock_;
  MetricsRegistry metrics_;
};

TEST_F(DecisionFileTest, WhatWasRecordedIsThereAfterItsEnd) {
  {
    DecisionFile file({.path = Path()}, clock_, metrics_);
    ASSERT_THAT(file.Open(), IsOk());
    for (int i = 0; i < 100; ++i) file.Recorded(FullOutcome());
  }
  EXPECT_EQ(Records(Path()), 100U);
  EXPECT_EQ(Count("written"), 100);
  struct stat status {};
  ASSERT_EQ(stat(Path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U) << "tenants' names are for this user";
}

TEST_F(DecisionFileTest, AFullFileBecomesTheOldOne) {
  {
    DecisionFile file({.path = Path(), .max_bytes = 2000}, clock_, metrics_);
    ASSERT_THAT(file.Open(), IsOk());
    for (int i = 0; i < 50; ++i) {
      file.Recorded(FullOutcome());
      while (Count("written") < i + 1) std::this_thread::yield();  // one batch each
    }
  }
  EXPECT_GT(Records(Path()), 0U);
  EXPECT_GT(Records(Path() + ".1"), 0U);
  EXPECT_LE(std::ifstream(Path(), std::ios::ate).tellg(), 2000);
}

TEST_F(DecisionFileTest, ADiskThatCannotFollowCostsRecordsNotTime) {
  DecisionFile file({.path = Path(), .max_queue = 10}, clock_, metrics_);  // not open yet: nobody takes them away
  for (int i = 0; i < 15; ++i) file.Recorded(FullOutcome());
  EXPECT_EQ(Count("dropped"), 5);
  ASSERT_THAT(file.Open(), IsOk());
}

TEST_F(DecisionFileTest, AFileThatCannotBeOpenedSaysWhy) {
  DecisionFile file({.path = folder_ / "no/such/folder.jsonl"}, clock_, metrics_);
  const absl::Status opened = file.Open();
  EXPECT_TRUE(absl::IsInvalidArgument(opened));
  EXPECT_NE(opened.message().find("no/such/folder.jsonl' cannot be opened: No such file or directory"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice::services
