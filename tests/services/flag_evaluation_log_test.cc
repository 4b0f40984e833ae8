#include "services/telemetry/flag_evaluation_log.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/log.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "tests/services/flag_documents.h"

namespace sluice::services {
namespace {

using config::FlagEvaluations;
using flags::Flag;
using nlohmann::json;
using testing::ElementsAre;

std::shared_ptr<const flags::FlagSet> Make(uint64_t epoch, flags::RolloutBps ttft_bps) {
  return test::MakeFlags(
      {.flags = {{.key = "phase5", .enabled = true, .rollout_bps = flags::kBuckets},
                 {.key = "ttft_pipeline", .enabled = true, .rollout_bps = ttft_bps, .parent = "phase5"}}},
      epoch);
}

class FlagEvaluationLogTest : public testing::Test {
 protected:
  FlagEvaluationLogTest() { InitLogging(LogFormat::kJson, LogLevel::kInfo); }
  ~FlagEvaluationLogTest() override { InitLogging(LogFormat::kText, LogLevel::kInfo); }

  // The lines that one request's decisions left.
  static std::vector<json> Lines(FlagEvaluationLog& log, const flags::FlagGate& gate, const std::string& key) {
    const flags::RequestDecisions decisions = gate.Decide({.targeting_key = key});
    testing::internal::CaptureStderr();
    log.Decided("r-" + key, key, decisions);
    std::istringstream text(testing::internal::GetCapturedStderr());
    std::vector<json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  }
  static std::vector<std::string> Outcomes(const std::vector<json>& lines) {
    std::vector<std::string> out;
    for (const json& line : lines) {
      out.push_back(fmt::format("{}={} {}", line["feature_flag.key"].get<std::string>(),
                                line["feature_flag.result.variant"].get<std::string>(),
                                line["feature_flag.result.reason"].get<std::string>()));
    }
    return out;
  }

  MetricsRegistry metrics_;
  flags::FlagGate gate_{Make(1, 5000), metrics_};
};

TEST_F(FlagEvaluationLogTest, OffSaysNothing) {
  FlagEvaluationLog log(FlagEvaluations::kOff);
  EXPECT_TRUE(Lines(log, gate_, "alice").empty());
}

TEST_F(FlagEvaluationLogTest, AllHasOpenTelemetrysFieldsAndNoTargetingKey) {
  FlagEvaluationLog log(FlagEvaluations::kAll);
  const std::vector<json> lines = Lines(log, gate_, "alice@example.com");
  ASSERT_EQ(lines.size(), 3U);
  const json& phase5 = lines[0];
  EXPECT_EQ(phase5["msg"], "feature_flag.evaluation") << phase5;
  EXPECT_EQ(phase5["request_id"], "r-alice@example.com");
  EXPECT_EQ(phase5["feature_flag.key"], "phase5");
  EXPECT_EQ(phase5["feature_flag.provider.name"], "sluice");
  EXPECT_EQ(phase5["feature_flag.result.variant"], "on");
  EXPECT_EQ(phase5["feature_flag.result.reason"], "static");
  EXPECT_EQ(phase5["feature_flag.version"], "1");
  EXPECT_EQ(phase5["feature_flag.context.id"], "ff8d9819fc0e12bf");  // SHA-256 of the key, by sha256sum
  EXPECT_FALSE(phase5.contains("error.type"));
  EXPECT_EQ(lines[2]["feature_flag.key"], "qos_policy");
  EXPECT_EQ(lines[2]["feature_flag.result.reason"], "error");
  EXPECT_EQ(lines[2]["error.type"], "flag_not_found");
  EXPECT_EQ(Lines(log, gate_, "alice@example.com").size(), 3U) << "again";
}

TEST_F(FlagEvaluationLogTest, AMissingKeyIsAnError) {
  FlagEvaluationLog log(FlagEvaluations::kAll);
  const std::vector<json> lines = Lines(log, gate_, "");
  EXPECT_FALSE(lines[1].contains("feature_flag.context.id"));
  EXPECT_EQ(lines[1]["feature_flag.result.reason"], "error");
  EXPECT_EQ(lines[1]["error.type"], "targeting_key_missing");
}

TEST_F(FlagEvaluationLogTest, ADefinitionOfFlagdNamesItsSet) {
  flags::FlagSetSpec spec = test::FlagSpec(R"({"flags": {"phase5": {"state": "ENABLED", "variants": {"on": true},
      "defaultVariant": "on"}}, "metadata": {"flagSetId": "chat"}})");
  MetricsRegistry metrics;
  const flags::FlagGate gate(test::MakeFlags(std::move(spec)), metrics);
  FlagEvaluationLog log(FlagEvaluations::kAll);
  EXPECT_EQ(Lines(log, gate, "alice")[0]["feature_flag.set.id"], "chat");
}

TEST_F(FlagEvaluationLogTest, ChangesSaysEachOutcomeOnceInAnEpoch) {
  FlagEvaluationLog log(FlagEvaluations::kChanges);
  std::vector<std::string> outcomes;
  for (int i = 0; i < 100; ++i) {
    for (std::string& outcome : Outcomes(Lines(log, gate_, fmt::format("user-{}", i)))) {
      outcomes.push_back(std::move(outcome));
    }
  }
  EXPECT_THAT(outcomes, testing::UnorderedElementsAre("phase5=on static", "ttft_pipeline=on split",
                                                      "ttft_pipeline=off split", "qos_policy=off error"));
  const flags::RequestDecisions old = gate_.Decide({.targeting_key = "alice"});
  gate_.Swap(Make(2, flags::kBuckets));
  EXPECT_THAT(Outcomes(Lines(log, gate_, "alice")),
              ElementsAre("phase5=on static", "ttft_pipeline=on static", "qos_policy=off error"));
  testing::internal::CaptureStderr();
  log.Decided("late", "alice", old);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "a decision of an older epoch";
  EXPECT_TRUE(Lines(log, gate_, "bob").empty());
}

}  // namespace
}  // namespace sluice::services
