// The instrument against known truths, over real gRPC: what it reports must be what the server did.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fmt/format.h"
#include "loadtest/report_files.h"
#include "loadtest/session.h"
#include "tests/loadtest/fake_server.h"

namespace sluice::loadtest {
namespace {

using testing::HasSubstr;

struct Result {
  Run run;
  Scenario scenario;
  Summary summary;
};

std::string FreshFolder() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  return fmt::format("{}/{}.{}", testing::TempDir(), info->test_suite_name(), info->name());
}

std::atomic<bool> never{false};

Result Drive(const std::string& url, const std::string& rest, const std::atomic<bool>& stop = never) {
  const std::string folder = FreshFolder();
  const SessionOptions options{
      .scenario_file = "test",
      .scenario_text = fmt::format("name: test\nengines: [{{name: fake, url: \"{}\"}}]\n{}\n", url, rest),
      .out_folder = folder};
  const absl::Status status = RunScenario(options, stop);
  EXPECT_TRUE(status.ok()) << status;
  Result result;
  auto summary = SummarizeFile(folder + "/run.jsonl", &result.run, &result.scenario);
  EXPECT_TRUE(summary.ok()) << summary.status();
  if (summary.ok()) result.summary = *std::move(summary);
  return result;
}

// The sanitized builds and busy machines of CI are late; what is tested here is what was measured of what happened.
constexpr const char* kPatient = "limits: {lag_ms: 1000, generator_cpu: 1000}\n";

// Transport adds to what the server did, and a busy machine adds more. A gap also shrinks when its first message came
// late; a time to first token can only grow.
void ExpectInterval(const Estimate& measured, double truth, double more_ms, double less_ms) {
  EXPECT_LE(measured.low, truth + more_ms);
  EXPECT_GE(measured.high, truth - less_ms);
}

void ExpectTruth(const Cell& cell, FakeServer& server, double slack_ms) {
  std::vector<double> ttft = server.TtftsMs(), gaps = server.GapsMs();
  std::sort(ttft.begin(), ttft.end());
  std::sort(gaps.begin(), gaps.end());
  for (size_t i = 0; i < kPercentiles.size(); ++i) {
    SCOPED_TRACE(fmt::format("p{}", kPercentiles[i]));
    ExpectInterval(cell.latencies.at("ttft_ms").percentiles[i], Percentile(ttft, kPercentiles[i] / 100.0), slack_ms,
                   0.2);
    ExpectInterval(cell.latencies.at("itl_ms").percentiles[i], Percentile(gaps, kPercentiles[i] / 100.0), slack_ms,
                   slack_ms);
  }
}

FakeOptions Lognormal() {
  return {.ttft_ms = [](auto& random) { return std::lognormal_distribution<>(3, 0.6)(random); },  // median 20 ms
          .gap_ms = [](auto& random) { return std::uniform_real_distribution<>(2, 6)(random); }};
}

constexpr double kSlackMs = 5;

TEST(Calibration, ClosedLoopMeasuresKnownQuantiles) {
  FakeServer server(Lognormal());
  const Result r = Drive(server.url(), fmt::format("{}workload: {{output_tokens: 8}}\n"
                                                   "load: {{mode: closed, concurrency: 16, duration_s: 2, warmup_s: 0, "
                                                   "blocks: 1}}",
                                                   kPatient));
  ASSERT_EQ(r.summary.cells.size(), 1U);
  const Cell& cell = r.summary.cells[0];
  EXPECT_GT(cell.succeeded, 200);
  EXPECT_EQ(cell.failed, 0);
  EXPECT_EQ(cell.peak_concurrency, 16);
  EXPECT_EQ(cell.output_tokens, cell.succeeded * 8);
  EXPECT_EQ(cell.succeeded, server.requests());
  ExpectTruth(cell, server, kSlackMs);
}

TEST(Calibration, OpenLoopMeasuresKnownQuantilesAndKeepsItsRate) {
  FakeServer server(Lognormal());
  const Result r = Drive(server.url(), fmt::format("{}workload: {{output_tokens: 4}}\n"
                                                   "load: {{mode: poisson, rate: 150, duration_s: 3, warmup_s: 0, "
                                                   "blocks: 1}}",
                                                   kPatient));
  ASSERT_EQ(r.summary.cells.size(), 1U);
  const Cell& cell = r.summary.cells[0];
  EXPECT_EQ(cell.requests, 450);
  EXPECT_EQ(server.requests(), 450);
  ExpectTruth(cell, server, kSlackMs);
}

TEST(Calibration, AStallShowsInEveryRequestThatItDelayed) {
  // 100 requests/s for 4 s; nothing moves for 1 s: a quarter of all wait, evenly from 1,000 ms down to 0.
  FakeServer server({});
  const Duration from = server.Elapsed() + std::chrono::milliseconds(1500);
  server.StallBetween(from, from + std::chrono::seconds(1));
  const Result r =
      Drive(server.url(), fmt::format("{}workload: {{output_tokens: 1}}\n"
                                      "load: {{mode: constant, rate: 100, duration_s: 4, warmup_s: 0, blocks: 1}}",
                                      kPatient));
  const auto& ttft = r.summary.cells.at(0).latencies.at("ttft_ms");
  EXPECT_EQ(r.summary.cells[0].requests, 400);
  EXPECT_NEAR(ttft.percentiles[2].value, 800, 60);  // 1000 × (1 − 0.05 / 0.25)
  EXPECT_NEAR(ttft.percentiles[3].value, 960, 60);  // 1000 × (1 − 0.01 / 0.25)
  EXPECT_LT(ttft.percentiles[0].value, 50);
}

TEST(Calibration, AClosedLoopHidesTheSameStall) {
  // One stream asks once in the stall: its p95 knows nothing of it. That is why scenarios of latency are open loops.
  FakeServer server({});
  const Duration from = server.Elapsed() + std::chrono::milliseconds(500);
  server.StallBetween(from, from + std::chrono::seconds(1));
  const Result r =
      Drive(server.url(), fmt::format("{}workload: {{output_tokens: 1}}\n"
                                      "load: {{mode: closed, concurrency: 1, duration_s: 3, warmup_s: 0, blocks: 1}}",
                                      kPatient));
  const auto& ttft = r.summary.cells.at(0).latencies.at("ttft_ms");
  EXPECT_LT(ttft.percentiles[2].value, 100);
  EXPECT_GT(ttft.max, 800);
}

TEST(Calibration, FailuresAreCountedAndNeverMeasured) {
  FakeServer server({.fail_every = 4});
  const Result r =
      Drive(server.url(), fmt::format("{}workload: {{output_tokens: 2}}\n"
                                      "load: {{mode: constant, rate: 100, duration_s: 2, warmup_s: 0, blocks: 1}}\n"
                                      "checks: [{{metric: error_rate, at_most: 0.1}}]",
                                      kPatient));
  const Cell& cell = r.summary.cells.at(0);
  EXPECT_EQ(cell.failed, 50);
  EXPECT_EQ(cell.succeeded, 150);
  EXPECT_EQ(cell.errors.at("RESOURCE_EXHAUSTED"), 50);
  EXPECT_THAT(cell.error_examples.at("RESOURCE_EXHAUSTED"), HasSubstr("told to"));
  EXPECT_EQ(cell.latencies.at("ttft_ms").count, 150);
  EXPECT_EQ(r.summary.exit_code(), 1);
}

TEST(Calibration, AServerThatOnlyFailsEndsTheBlockEarly) {
  FakeServer server({.fail_every = 1});
  const Result r =
      Drive(server.url(),
            fmt::format("{}load: {{mode: constant, rate: 100, duration_s: 60, warmup_s: 0, blocks: 1}}", kPatient));
  EXPECT_LT(server.requests(), 200);
  EXPECT_GT(r.summary.cells.at(0).failed, 19);
  EXPECT_EQ(r.summary.exit_code(), 2);
  EXPECT_THAT(r.summary.invalid.at(0), HasSubstr("ended early: 20 of 20 requests failed"));
  EXPECT_THAT(r.summary.invalid.at(0), HasSubstr("RESOURCE_EXHAUSTED: the fake server was told to"));
}

TEST(Calibration, CancelsAsPlannedAreNoFailuresAndSlowReadersMeasureNothing) {
  FakeServer server({});
  const Result r =
      Drive(server.url(), fmt::format("{}workload: {{output_tokens: 50, cancel_share: 0.3, cancel_after: 2, "
                                      "slow_share: 0.3, slow_delay_ms: 10}}\n"
                                      "load: {{mode: constant, rate: 60, duration_s: 1, warmup_s: 0, blocks: 1}}",
                                      kPatient));
  const Cell& cell = r.summary.cells.at(0);
  EXPECT_GT(cell.cancelled, 5);
  EXPECT_EQ(cell.failed, 0);
  EXPECT_EQ(cell.cancelled + cell.succeeded, 60);
  EXPECT_LT(cell.latencies.at("ttft_ms").count, cell.succeeded);
}

TEST(Calibration, AnotherPipelineThanExpectedMakesTheRunInvalid) {
  FakeServer server({.pipeline = "baseline"});
  const Result r = Drive(server.url(), fmt::format("{}load: {{mode: closed, duration_s: 0.3, warmup_s: 0, blocks: 1}}\n"
                                                   "workload: {{output_tokens: 1}}",
                                                   kPatient));
  Scenario scenario = r.scenario;
  EXPECT_EQ(Summarize(r.run, scenario).exit_code(), 0);
  scenario.engines[0].expect_pipeline = "ttft";
  const Summary summary = Summarize(r.run, scenario);
  EXPECT_EQ(summary.exit_code(), 2);
  EXPECT_THAT(summary.invalid.at(0), HasSubstr("served by pipeline 'baseline' instead of 'ttft'"));
}

TEST(Calibration, AGeneratorThatCannotKeepUpSaysSo) {
  FakeServer server({});
  const Result r = Drive(server.url(),
                         "limits: {max_in_flight: 2}\nworkload: {output_tokens: 100}\n"
                         "load: {mode: constant, rate: 200, duration_s: 1, warmup_s: 0, blocks: 1}");
  EXPECT_EQ(r.summary.exit_code(), 2);
  EXPECT_THAT(r.summary.invalid.at(0), HasSubstr("client-limited"));
}

TEST(Calibration, CtrlCLeavesAPartialRunThatSaysSo) {
  FakeServer server({});
  std::atomic<bool> stop{false};
  std::thread user([&] {
    while (server.requests() < 10) std::this_thread::yield();
    stop = true;
  });
  const Result r =
      Drive(server.url(), "workload: {output_tokens: 20}\nload: {mode: constant, rate: 50, duration_s: 600, blocks: 1}",
            stop);
  user.join();
  EXPECT_TRUE(r.summary.partial);
  EXPECT_EQ(r.summary.exit_code(), 2);
  EXPECT_GE(r.run.records.size(), 10U);
}

TEST(Calibration, NobodyListeningIsSaidAtOnce) {
  const SessionOptions options{.scenario_file = "test",
                               .scenario_text = "name: t\nengines: [{name: gone, url: \"grpc://127.0.0.1:9\"}]\n",
                               .out_folder = FreshFolder()};
  const absl::Status status = RunScenario(options, never);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("'gone' at grpc://127.0.0.1:9: no gRPC connection"));
}

TEST(Calibration, AnUnknownModelIsSaidWithThoseThatExist) {
  FakeServer server({});
  const SessionOptions options{
      .scenario_file = "test",
      .scenario_text = fmt::format("name: t\nengines: [{{name: a, url: \"{}\", model: other}}]\n", server.url()),
      .out_folder = FreshFolder()};
  const absl::Status status = RunScenario(options, never);
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no model 'other'; there are: fake"));
}

}  // namespace
}  // namespace sluice::loadtest
