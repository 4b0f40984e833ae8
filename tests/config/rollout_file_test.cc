#include "config/rollout_file.h"

#include <filesystem>
#include <map>

#include "config/fault_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice::config {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using ::testing::HasSubstr;

class RolloutFileTest : public testing::Test {
 protected:
  absl::StatusOr<RolloutFile> Load(const std::string& text) {
    folder_.Write("rollouts.yaml", text);
    return LoadRolloutFile(folder_ / "rollouts.yaml");
  }
  std::string Refused(const std::string& text) {
    const auto file = Load(text);
    EXPECT_FALSE(file.ok()) << text;
    return std::string(file.status().message());
  }
  const test::TempFolder folder_;
};

TEST_F(RolloutFileTest, WhatIsNotSaidHasItsDefault) {
  const auto file = Load("rollouts: [{flag: ttft_pipeline}]");
  ASSERT_THAT(file, IsOk());
  ASSERT_EQ(file->rollouts.size(), 1u);
  EXPECT_EQ(file->rollouts[0], rollout::RolloutSpec{.flag = "ttft_pipeline"});
  EXPECT_EQ(file->window, std::chrono::seconds(10));
  EXPECT_TRUE(Load("{}")->rollouts.empty());
}

TEST_F(RolloutFileTest, TheShippedFileSaysTheDefaults) {
  const auto file = LoadRolloutFile("config/rollouts.yaml");
  ASSERT_THAT(file, IsOk());
  ASSERT_EQ(file->rollouts.size(), 1u);
  EXPECT_EQ(file->rollouts[0], rollout::RolloutSpec{.flag = "ttft_pipeline"});
}

TEST_F(RolloutFileTest, EveryKeyIsRead) {
  const auto file = Load(R"(
window_ms: 500
rollouts:
  - flag: phase5
    stages: [{percent: 0.5, dwell_ms: 7, min_samples: 3}, {percent: 20}]
    promotion: manual
    holdback_percent: 2.5
    analysis:
      mode: threshold
      alpha: 0.001
      beta: 0.1
      max_error_ratio: 3
      allowed_error_percent: 0.5
      max_ttft_p95_ratio: 1.7
      max_latency_p95_ratio: 1.8
      max_memory_growth_percent_per_hour: 40
      memory_span_ms: 5000
      min_memory_growth_bytes: 10
      max_crash_percent: 0.2
      crash_span_ms: 6000
      threshold_samples: 9
    failures_in_a_row: 0
    rollback: {style: gradual, interval_ms: 200, cool_down_ms: 300, then: retry, max_attempts: 4}
    decay_after_ms: 400
    alerts: [oncall]
)");
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->window, milliseconds(500));
  const rollout::RolloutSpec& spec = file->rollouts[0];
  EXPECT_EQ(spec.flag, "phase5");
  ASSERT_EQ(spec.stages.size(), 2u);
  EXPECT_EQ(spec.stages[0], (rollout::Stage{.bps = 50, .dwell = milliseconds(7), .min_samples = 3}));
  EXPECT_EQ(spec.stages[1].bps, 2'000u);
  EXPECT_EQ(spec.promotion, rollout::Promotion::kManual);
  EXPECT_EQ(spec.holdback_bps, 250u);
  EXPECT_EQ(spec.analysis, (rollout::AnalysisOptions{.mode = rollout::Mode::kThreshold,
                                                     .alpha = 0.001,
                                                     .beta = 0.1,
                                                     .max_error_ratio = 3,
                                                     .allowed_error_rate = 0.005,
                                                     .max_ttft_ratio = 1.7,
                                                     .max_latency_ratio = 1.8,
                                                     .max_growth_per_hour = 0.4,
                                                     .memory_span = milliseconds(5000),
                                                     .min_growth_bytes = 10,
                                                     .max_crash_rate = 0.002,
                                                     .crash_span = milliseconds(6000),
                                                     .threshold_samples = 9}));
  EXPECT_EQ(spec.failures_in_a_row, 0);
  EXPECT_EQ(spec.rollback, rollout::RollbackStyle::kGradual);
  EXPECT_EQ(spec.rollback_interval, milliseconds(200));
  EXPECT_EQ(spec.cool_down, milliseconds(300));
  EXPECT_EQ(spec.after_rollback, rollout::AfterRollback::kRetry);
  EXPECT_EQ(spec.max_attempts, 4);
  EXPECT_EQ(spec.decay_after, milliseconds(400));
  EXPECT_EQ(spec.alerts, std::vector<std::string>{"oncall"});
}

TEST_F(RolloutFileTest, FaultsNameFileLineKeyAndWhatIsAllowed) {
  EXPECT_THAT(Refused("rollouts:\n  - flag: nope\n"),
              HasSubstr("rollouts.yaml:2: rollouts[0].flag: \"nope\" is not known; allowed: phase5, "));
  EXPECT_THAT(Refused("rollouts:\n  - stages: []\n"), HasSubstr("flag: is missing"));
  EXPECT_THAT(Refused("rollouts:\n  - flag: phase5\n    stages: [{percent: 10}, {percent: 5}]\n"),
              HasSubstr("stages[1]: 5 % does not rise above the 10 % before it"));
  EXPECT_THAT(Refused("rollouts:\n  - flag: phase5\n    stages: [{percent: 10.123}]\n"), HasSubstr("percent"));
  EXPECT_THAT(Refused("rollouts:\n  - flag: phase5\n    holdback_percent: 6\n"), HasSubstr("allowed are 0 to 5 %"));
  EXPECT_THAT(Refused("rollouts:\n  - flag: phase5\n    analysis: {max_error_ratio: 1}\n"),
              HasSubstr("max_error_ratio"));
  EXPECT_THAT(Refused("rollouts:\n  - flag: phase5\n    promotoin: manual\n"), HasSubstr("promotion"));
  EXPECT_THAT(Refused("rollouts: [{flag: phase5}, {flag: phase5}]"),
              HasSubstr("a rollout of phase5 stands above already"));
  EXPECT_THAT(Refused(""), HasSubstr("is empty"));
}

// What schema_test.py asks the schema; here the loader.
std::map<std::string, absl::Status> LoadAll(const std::string& folder) {
  std::map<std::string, absl::Status> out;
  for (const auto& entry : std::filesystem::directory_iterator("tests/config/rollout_samples/" + folder)) {
    out[entry.path().stem().string()] = LoadRolloutFile(entry.path().string()).status();
  }
  return out;
}

TEST(RolloutSamples, TheLoaderSaysWhatTheSchemaSays) {
  const auto good = LoadAll("good"), bad = LoadAll("bad"), beyond = LoadAll("bad_beyond_schema");
  EXPECT_GE(good.size(), 6u);
  EXPECT_GE(bad.size(), 60u);
  EXPECT_GE(beyond.size(), 6u);
  for (const auto& [name, status] : good) EXPECT_THAT(status, IsOk()) << name;
  for (const auto* refused : {&bad, &beyond}) {
    for (const auto& [name, status] : *refused) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
      EXPECT_THAT(std::string(status.message()), HasSubstr("; allowed: ")) << name;
    }
  }
}

TEST_F(RolloutFileTest, InjectedFaults) {
  folder_.Write("faults.yaml", "ttft: {error_percent: 20, crash_percent: 0.5, delay_ms: 30, leak_bytes: 7}\n");
  const auto faults = LoadFaultFile(folder_ / "faults.yaml");
  ASSERT_THAT(faults, IsOk());
  EXPECT_EQ(*faults,
            (FaultsByPipeline{
                {"ttft", {.error_share = 0.2, .crash_share = 0.005, .delay = milliseconds(30), .leak_bytes = 7}}}));
  folder_.Write("faults.yaml", "");
  EXPECT_TRUE(LoadFaultFile(folder_ / "faults.yaml")->empty());
  folder_.Write("faults.yaml", "other: {}\nttft: {error_percent: 101}\n");
  const auto refused = LoadFaultFile(folder_ / "faults.yaml");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("other"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("faults.yaml:2: ttft.error_percent"));
}

}  // namespace
}  // namespace sluice::config
