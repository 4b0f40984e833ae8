// Whole runs over real gRPC: what is counted, what makes a run invalid, how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fmt/format.h"
#include "tests/loadtest/drive.h"
#include "tests/loadtest/fake_server.h"

namespace sluice::loadtest {
namespace {

using testing::HasSubstr;

TEST(Session, FailuresAreCountedAndNeverMeasured) {
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

TEST(Session, AServerThatOnlyFailsEndsTheBlockEarly) {
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

TEST(Session, CancelsAsPlannedAreNoFailuresAndSlowReadersMeasureNothing) {
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

TEST(Session, AnotherPipelineThanExpectedMakesTheRunInvalid) {
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

TEST(Session, AGeneratorThatCannotKeepUpSaysSo) {
  FakeServer server({});
  const Result r = Drive(server.url(),
                         "limits: {max_in_flight: 2}\nworkload: {output_tokens: 100}\n"
                         "load: {mode: constant, rate: 200, duration_s: 1, warmup_s: 0, blocks: 1}");
  EXPECT_EQ(r.summary.exit_code(), 2);
  EXPECT_THAT(r.summary.invalid.at(0), HasSubstr("client-limited"));
}

TEST(Session, CtrlCLeavesAPartialRunThatSaysSo) {
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

TEST(Session, CtrlCDoesNotWaitForThinkingUsers) {
  FakeServer server({});
  std::atomic<bool> stop{false};
  std::thread user([&] {
    while (server.requests() < 3) std::this_thread::yield();
    stop = true;
  });
  const Result r = Drive(server.url(),
                         "workload: {form: chat, output_tokens: 2, turns: 2, think_time_ms: 3600000}\n"
                         "load: {mode: constant, rate: 50, duration_s: 600, blocks: 1}",
                         stop);
  user.join();
  EXPECT_TRUE(r.summary.partial);
}

TEST(Session, CtrlCBeforeTheFirstRequestLeavesAPartialRunToo) {
  FakeServer server({});
  const Result r = Drive(server.url(), "load: {duration_s: 600}", std::atomic<bool>{true});
  EXPECT_TRUE(r.summary.partial);
  EXPECT_EQ(server.requests(), 0);
  EXPECT_THAT(r.summary.invalid, testing::Contains(HasSubstr("ended early: interrupted")));
}

TEST(Session, NobodyListeningIsSaidAtOnce) {
  const absl::Status status =
      TryDrive("{name: gone, url: \"grpc://127.0.0.1:9\"}", "", FreshFolder(), std::atomic<bool>{false});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("'gone' at grpc://127.0.0.1:9: no gRPC connection"));
}

TEST(Session, AnUnknownModelIsSaidWithThoseThatExist) {
  FakeServer server({});
  const absl::Status status = TryDrive(fmt::format("{{name: a, url: \"{}\", model: other}}", server.url()), "",
                                       FreshFolder(), std::atomic<bool>{false});
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no model 'other'; there are: fake"));
}

}  // namespace
}  // namespace sluice::loadtest
