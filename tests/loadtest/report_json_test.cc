#include "loadtest/report_json.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/loadtest/example_summary.h"

namespace sluice::loadtest {
namespace {

using ::testing::DoubleNear;

using Json = nlohmann::json;

constexpr int64_t kMs = 1'000'000;

// Throws (and so fails the test) on NaN written as such, or strings that are no UTF-8.
Json RoundTrip(const Json& json) { return Json::parse(json.dump()); }

TEST(SummaryJson, IsComplete) {
  const Json json = RoundTrip(SummaryJson(ExampleSummary(2)));
  EXPECT_EQ(json["format"], "sluice-bench-summary");
  EXPECT_EQ(json["version"], 1);
  EXPECT_EQ(json["exit_code"], 1);
  EXPECT_EQ(json["seed"], 42);
  EXPECT_EQ(json["arms"], Json({"baseline", "ttft"}));
  ASSERT_EQ(json["cells"].size(), 4u);
  const Json& cell = json["cells"][0];
  EXPECT_EQ(cell["offered"], 2.0);
  EXPECT_EQ(cell["succeeded"], 97);
  EXPECT_EQ(cell["per_block"]["ttft_p95_ms"].size(), 5u);
  EXPECT_EQ(cell["ttft_ecdf"][99][1], 1.0);
  EXPECT_GT(cell["latencies"]["ttft_ms"]["p95"]["high"], cell["latencies"]["ttft_ms"]["p95"]["value"]);
  EXPECT_EQ(json["checks"][0]["verdict"], "beaten");
  EXPECT_EQ(json["comparisons"][0]["winner"], "ttft");
  EXPECT_EQ(json["faults"][0]["action"], "stall");
  EXPECT_EQ(json["timeline"]["ttft"].size(), 50u);
}

TEST(SummaryJson, NumbersThatAreNoneAreNull) {
  const Json json = RoundTrip(SummaryJson(ExampleSummary(1)));
  EXPECT_TRUE(json["cells"][0]["latencies"]["ttft_ms"]["p99"]["high"].is_null()) << "infinite";
  EXPECT_TRUE(json["comparisons"][2]["value"].is_null()) << "NaN";
}

TEST(SummaryJson, HostileText) {
  Summary summary = ExampleSummary(1);
  summary.scenario = kHostile;
  summary.environment[kHostile] = kHostile;
  summary.cells[0].errors[kHostile] = 1;
  summary.timeline[kHostile] = {};
  const Json json = RoundTrip(SummaryJson(summary));
  EXPECT_TRUE(json["scenario"].get<std::string>().starts_with("<script>"));
}

TEST(SummaryJson, EmptyRun) {
  const Json json = RoundTrip(SummaryJson({}));
  EXPECT_EQ(json["cells"], Json::array());
  EXPECT_EQ(json["timeline"], Json::object());
}

// Scheduled at 0 ms, sent at 10 ms.
Record Request(std::vector<int64_t> token_ms, int64_t output_tokens) {
  Record r{.arm = "ttft", .scheduled_ns = 0, .sent_ns = 10 * kMs, .prompt_tokens = 100, .output_tokens = output_tokens};
  for (const int64_t ms : token_ms) r.token_ns.push_back(ms * kMs);
  r.done_ns = (token_ms.empty() ? 20 : token_ms.back() + 5) * kMs;
  r.code = absl::StatusCode::kOk;
  return r;
}

Run SmallRun() {
  Run run;
  run.records = {Request({60, 80, 120}, 5), Request({110}, 1), Request({}, -1),
                 Request({70}, 1),          Request({70}, 1),  Request({70}, 1)};
  run.records[2].code = absl::StatusCode::kUnavailable;
  run.records[2].error = "gone \xff";
  run.records[3].warmup = true;
  run.records[4].arm = "other";
  run.records[5].planned_cancel = true;
  run.records[5].code = absl::StatusCode::kCancelled;
  return run;
}

Summary SmallSummary() {
  Summary summary{.environment = {{"model", "smol"}, {"time", "2026-11-22T19:40:00Z"}}, .arms = {"ttft", "other"}};
  Cell cell{.arm = "ttft", .offered = 4, .open_loop = true, .duration_s = 2};
  cell.goodput_per_s = 0.5;
  cell.peak_concurrency = 3;
  summary.cells = {cell};
  summary.timeline["ttft"] = {{.at_s = 0, .output_tokens = 4}, {.at_s = 1, .output_tokens = 2}};
  return summary;
}

TEST(VllmJson, TotalsAndRates) {
  const Json json = RoundTrip(VllmJson(SmallRun(), SmallSummary(), "ttft"));
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["num_prompts"], 3);
  EXPECT_EQ(json["duration"], 2.0);
  EXPECT_EQ(json["total_input_tokens"], 200);
  EXPECT_EQ(json["total_output_tokens"], 6);
  EXPECT_EQ(json["request_throughput"], 1.0);
  EXPECT_EQ(json["request_goodput"], 0.5);
  EXPECT_EQ(json["output_throughput"], 3.0);
  EXPECT_EQ(json["total_token_throughput"], 103.0);
  EXPECT_EQ(json["max_output_tokens_per_s"], 4.0);
  EXPECT_EQ(json["max_concurrent_requests"], 3);
  EXPECT_EQ(json["request_rate"], 4.0);
  EXPECT_TRUE(json["max_concurrency"].is_null());
  EXPECT_EQ(json["model_id"], "smol");
  EXPECT_EQ(json["date"], "20261122-194000");
}

TEST(VllmJson, ArraysHaveOneEntryARequestInSeconds) {
  const Json json = RoundTrip(VllmJson(SmallRun(), SmallSummary(), "ttft"));
  for (const char* key : {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times",
                          "generated_texts", "errors"}) {
    EXPECT_EQ(json[key].size(), 3u) << key;
  }
  EXPECT_EQ(json["input_lens"], Json({100, 100, 100}));
  EXPECT_EQ(json["output_lens"], Json({5, 1, 0}));
  EXPECT_THAT(json["ttfts"].get<std::vector<double>>(),
              testing::ElementsAre(DoubleNear(0.05, 1e-12), DoubleNear(0.1, 1e-12), 0));
  EXPECT_THAT(json["itls"][0].get<std::vector<double>>(),
              testing::ElementsAre(DoubleNear(0.02, 1e-12), DoubleNear(0.04, 1e-12)));
  EXPECT_THAT(json["latencies"].get<std::vector<double>>(),
              testing::ElementsAre(DoubleNear(0.11, 1e-12), DoubleNear(0.1, 1e-12), 0));
  EXPECT_THAT(json["start_times"][0].get<double>(), DoubleNear(0.01, 1e-12));
  EXPECT_THAT(json["queue_times"][0].get<double>(), DoubleNear(0.01, 1e-12));
  EXPECT_EQ(json["errors"][0], "");
  EXPECT_EQ(json["errors"][2], "gone �");
}

TEST(VllmJson, StatisticsInMilliseconds) {
  const Json json = RoundTrip(VllmJson(SmallRun(), SmallSummary(), "ttft"));
  for (const char* metric : {"ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue"}) {
    for (const char* statistic : {"mean", "median", "std", "p50", "p90", "p95", "p99"}) {
      EXPECT_TRUE(json[std::string(statistic) + "_" + metric + "_ms"].is_number()) << statistic << metric;
    }
  }
  EXPECT_THAT(json["mean_ttft_ms"].get<double>(), DoubleNear(75, 1e-9));
  EXPECT_THAT(json["std_ttft_ms"].get<double>(), DoubleNear(25, 1e-9)) << "over n, as numpy's std";
  EXPECT_THAT(json["p90_ttft_ms"].get<double>(), DoubleNear(95, 1e-9));
  EXPECT_THAT(json["mean_tpot_ms"].get<double>(), DoubleNear(15, 1e-9)) << "(110 - 50) / (5 - 1)";
  EXPECT_THAT(json["median_itl_ms"].get<double>(), DoubleNear(30, 1e-9));
  EXPECT_THAT(json["mean_e2el_ms"].get<double>(), DoubleNear(105, 1e-9));
  EXPECT_THAT(json["mean_e2el_including_client_queue_ms"].get<double>(), DoubleNear(115, 1e-9));
}

TEST(VllmJson, ClosedLoopHasConcurrencyInsteadOfARate) {
  Summary summary = SmallSummary();
  summary.cells[0].open_loop = false;
  const Json json = VllmJson(SmallRun(), summary, "ttft");
  EXPECT_EQ(json["max_concurrency"], 4.0);
  EXPECT_EQ(json["request_rate"], "inf");
}

TEST(VllmJson, NothingMeasured) {
  const Json json = RoundTrip(VllmJson({}, {}, "ttft"));
  EXPECT_EQ(json["completed"], 0);
  EXPECT_EQ(json["request_throughput"], 0);
  EXPECT_EQ(json["p99_ttft_ms"], 0);
  EXPECT_EQ(json["ttfts"], Json::array());
  EXPECT_TRUE(json["request_goodput"].is_null());
}

}  // namespace
}  // namespace sluice::loadtest
