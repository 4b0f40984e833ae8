// The instrument against known truths, over real gRPC: what it reports must be what the server did. Its tolerances are
// for an undisturbed build: label `timing`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fmt/format.h"
#include "tests/loadtest/drive.h"
#include "tests/loadtest/fake_server.h"

namespace sluice::loadtest {
namespace {

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
}  // namespace
}  // namespace sluice::loadtest
