// Verdicts on made-up records: failure modes, drift, regression, comparisons; and the run's file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "loadtest/cells.h"
#include "loadtest/comparison.h"
#include "loadtest/jsonl.h"
#include "loadtest/regression.h"
#include "loadtest/stress.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

using testing::HasSubstr;

using RunData = loadtest::Run;  // testing::Test has a Run of its own

constexpr int64_t kMs = 1'000'000;

Record MakeRecord(int64_t scheduled_ms, double ttft_ms, const std::string& arm = "a", int block = 0) {
  Record r;
  r.arm = arm;
  r.block = block;
  r.scheduled_ns = r.sent_ns = scheduled_ms * kMs;
  const auto first = r.scheduled_ns + static_cast<int64_t>(ttft_ms * 1e6);
  r.token_ns = {first, first + 10 * kMs, first + 30 * kMs};
  r.done_ns = first + 31 * kMs;
  r.prompt_tokens = 10;
  r.output_tokens = 3;
  r.code = absl::StatusCode::kOk;
  r.pipeline = "baseline";
  return r;
}

Record Failed(int64_t scheduled_ms, absl::StatusCode code) {
  Record r = MakeRecord(scheduled_ms, 5);
  r.token_ns.clear();
  r.code = code;
  return r;
}

Scenario OneArm() {
  Scenario s;
  s.engines = {{.name = "a", .start = "sluice"}};
  return s;
}

RunData SteadyRun(int requests = 100) {
  RunData run;
  run.partial = false;
  run.environment = {{"cores", "2"}, {"memory_limit_mb", "1000"}};
  std::mt19937_64 random(1);
  std::normal_distribution<double> noise(50, 5);
  for (int i = 0; i < requests; ++i) run.records.push_back(MakeRecord(i * 100, noise(random)));
  run.blocks = {{.arm = "a", .offered = 10, .open_loop = true, .end_ns = requests * 100 * kMs}};
  return run;
}

std::string ModeOf(const RunData& run) { return FailureMode(run, MakeCells(run, OneArm()).at(0)); }

TEST(FailureMode, EachHasItsName) {
  EXPECT_EQ(ModeOf(SteadyRun()), "none");

  RunData crash = SteadyRun();
  crash.resources = {{.arm = "a", .at_ns = 1000 * kMs, .alive = false}};
  EXPECT_EQ(ModeOf(crash), "crash");

  RunData client = SteadyRun();
  client.blocks[0].limited = "late";
  EXPECT_EQ(ModeOf(client), "client_limited");

  RunData memory = SteadyRun();
  memory.resources = {{.arm = "a", .at_ns = 1000 * kMs, .rss_bytes = int64_t{950} << 20}};
  EXPECT_EQ(ModeOf(memory), "out_of_memory");

  const auto with = [](int failures, absl::StatusCode code) {
    RunData run = SteadyRun(100 - failures);
    for (int i = 0; i < failures; ++i) run.records.push_back(Failed(i * 100, code));
    return ModeOf(run);
  };
  EXPECT_EQ(with(6, absl::StatusCode::kResourceExhausted), "admission_rejected");
  EXPECT_EQ(with(4, absl::StatusCode::kResourceExhausted), "none");
  // The ancestor counted timeouts as a high error rate.
  EXPECT_EQ(with(20, absl::StatusCode::kDeadlineExceeded), "timeout");
  EXPECT_EQ(with(11, absl::StatusCode::kInternal), "high_error_rate");
  EXPECT_EQ(with(9, absl::StatusCode::kInternal), "none");
}

TEST(FailureMode, AGrowingQueueIsSaturationAndBusyCpuAloneIsNot) {
  RunData run = SteadyRun(0);
  for (int i = 0; i < 100; ++i) run.records.push_back(MakeRecord(i * 100, 50 + 60 * i));  // 60 ms more each 100 ms
  EXPECT_EQ(ModeOf(run), "saturated");
  RunData busy = SteadyRun();
  for (int i = 0; i < 10; ++i) busy.resources.push_back({.arm = "a", .at_ns = i * 1000 * kMs, .cpu_percent = 199});
  EXPECT_EQ(ModeOf(busy), "none");
  for (Record& r : busy.records) r.token_ns = {r.scheduled_ns + 3000 * kMs};
  EXPECT_EQ(ModeOf(busy), "resource_exhaustion");
}

TEST(Stress, NamesTheBreakingPointAndTheLastGoodLevel) {
  RunData run = SteadyRun();
  for (int i = 0; i < 50; ++i) {
    run.records.push_back(Failed(20000 + i * 50, absl::StatusCode::kDeadlineExceeded));
    run.records.back().level = 1;
  }
  run.blocks.push_back({.arm = "a", .level = 1, .offered = 20, .open_loop = true, .start_ns = 20000 * kMs});
  Scenario scenario = OneArm();
  scenario.kind = Scenario::Kind::kStress;
  const Summary summary = Summarize(run, scenario);
  EXPECT_THAT(summary.notes,
              testing::Contains(HasSubstr("breaks at 20 requests/s: timeout; last good level: 10 requests/s")));
}

TEST(Soak, SeesAMemoryLeakAndPassesASteadyRun) {
  Scenario scenario = OneArm();
  scenario.kind = Scenario::Kind::kSoak;
  const auto verdict_of_rss = [&](double mb_per_s) {
    RunData run = SteadyRun(600);
    std::mt19937_64 random(2);
    std::normal_distribution<double> noise(0, 1);
    for (int i = 0; i < 60; ++i) {
      const double mb = 200 + mb_per_s * i + noise(random);
      run.resources.push_back({.arm = "a", .at_ns = i * 1000 * kMs, .rss_bytes = static_cast<int64_t>(mb * (1 << 20))});
    }
    const Summary summary = Summarize(run, scenario);
    EXPECT_EQ(summary.checks.size(), 2U);
    return summary.checks.at(1).verdict;
  };
  EXPECT_EQ(verdict_of_rss(0), Verdict::kBeaten);
  EXPECT_EQ(verdict_of_rss(2), Verdict::kMissed);  // 120 MB of 200 in the run
}

// Blocks whose TTFT is around `mean`, with a machine that changes by 30 % from block to block.
RunData PairedRun(double slowdown, uint64_t seed) {
  RunData run;
  run.partial = false;
  std::mt19937_64 random(seed);
  std::normal_distribution<double> noise(1, 0.05);
  std::uniform_real_distribution<double> machine(0.85, 1.15);
  for (int block = 0; block < 6; ++block) {
    const double speed = machine(random);
    for (const auto& [arm, factor] : {std::pair{"old", 1.0}, {"new", slowdown}}) {
      for (int i = 0; i < 60; ++i) {
        Record r = MakeRecord(block * 20000 + i * 100, 0, arm, block);
        r.token_ns = {r.scheduled_ns + static_cast<int64_t>(50e6 * speed * factor * noise(random))};
        run.records.push_back(r);
      }
    }
  }
  return run;
}

Scenario Pair() {
  Scenario s;
  s.kind = Scenario::Kind::kRegression;
  s.engines = {{.name = "old"}, {.name = "new"}};
  s.compare = {"ttft_mean_ms", "ttft_p95_ms"};
  return s;
}

TEST(Regression, CatchesFifteenPercentAndPassesUnchangedRuns) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    EXPECT_EQ(Summarize(PairedRun(1, seed), Pair()).exit_code(), 0) << "seed " << seed;
    EXPECT_EQ(Summarize(PairedRun(1.15, seed), Pair()).exit_code(), 1) << "seed " << seed;
  }
}

Summary WithBlocks(const std::vector<double>& ttft, const std::string& machine) {
  Summary s;
  s.environment = {{"fingerprint", machine}, {"commit", "abc"}};
  s.scenario = "regression";
  s.cells = {{.arm = "a", .per_block = {{"ttft_mean_ms", ttft}}}};
  return s;
}

TEST(Regression, AStoredBaselineNeedsTheSameMachine) {
  Scenario scenario = OneArm();
  scenario.kind = Scenario::Kind::kRegression;
  scenario.compare = {"ttft_mean_ms"};
  const std::string path = testing::TempDir() + "/baseline.json";
  std::ofstream(path) << ToJson(BaselineOf(WithBlocks({100, 101, 99, 100, 102}, "this")));
  const auto baseline = ReadBaseline(path);
  ASSERT_TRUE(baseline.ok()) << baseline.status();
  const auto code = [&](const std::vector<double>& ttft, const std::string& machine) {
    Summary s = WithBlocks(ttft, machine);
    JudgeAgainst(*baseline, scenario, s);
    return s.exit_code();
  };
  EXPECT_EQ(code({101, 100, 98, 103, 100}, "this"), 0);
  EXPECT_EQ(code({116, 115, 114, 115, 117}, "this"), 1);
  EXPECT_EQ(code({101, 100, 98, 103, 100}, "another"), 2);
  EXPECT_EQ(code({60, 200, 90, 150, 40}, "this"), 2) << "too noisy to say";
  EXPECT_EQ(code({}, "this"), 2) << "a missing metric is no pass";
  EXPECT_TRUE(absl::IsNotFound(ReadBaseline("/nonexistent").status()));
}

TEST(Checks, AMetricThatWasNotMeasuredIsInvalid) {
  Scenario scenario = OneArm();
  scenario.checks = {{.metric = "goodput_per_s", .at_least = 1, .has_at_least = true}};  // without SLOs there is none
  const Summary summary = Summarize(SteadyRun(), scenario);
  EXPECT_EQ(summary.checks.at(0).verdict, Verdict::kInvalid);
  EXPECT_EQ(summary.exit_code(), 2);
}

TEST(Checks, ReachedMeansTheIntervalHoldsOrBeatsTheLimit) {
  Scenario scenario = OneArm();
  const auto verdict = [&](double limit) {
    scenario.checks = {{.metric = "ttft_mean_ms", .at_most = limit, .has_at_most = true}};
    return Summarize(SteadyRun(), scenario).checks.at(0).verdict;
  };
  const Estimate mean = MakeCells(SteadyRun(), scenario).at(0).latencies.at("ttft_ms").mean;
  EXPECT_EQ(verdict(mean.high + 1), Verdict::kBeaten);
  EXPECT_EQ(verdict(mean.value - 0.1), Verdict::kReached);
  EXPECT_EQ(verdict(mean.low - 1), Verdict::kMissed);
}

TEST(Checks, AnIntervalThatHoldsEverythingReachesNothing) {
  Scenario scenario = Pair();
  scenario.kind = Scenario::Kind::kMeasure;
  scenario.checks = {{.metric = "ttft_mean_ms", .arm = "new", .versus = "old", .at_most = 0.9, .has_at_most = true}};
  RunData two_pairs = PairedRun(1, 3);
  std::erase_if(two_pairs.records, [](const Record& r) { return r.block > 1; });
  const Summary summary = Summarize(two_pairs, scenario);
  EXPECT_EQ(summary.checks.at(0).verdict, Verdict::kMissed);
  EXPECT_THAT(summary.checks.at(0).note, HasSubstr("(2)"));
  scenario.checks[0].at_most = 1.1;
  EXPECT_EQ(Summarize(PairedRun(1, 3), scenario).checks.at(0).verdict, Verdict::kBeaten);
}

TEST(Cells, FormulasByHand) {
  Scenario scenario = OneArm();
  scenario.slo = {.ttft_ms = 45};
  RunData run;
  run.partial = false;
  run.records = {MakeRecord(0, 40), MakeRecord(100, 50)};
  run.records[1].warmup = false;
  run.records.push_back(MakeRecord(-1000, 999));
  run.records.back().warmup = true;
  const Cell cell = MakeCells(run, scenario).at(0);
  EXPECT_EQ(cell.requests, 2);
  EXPECT_DOUBLE_EQ(cell.latencies.at("ttft_ms").mean.value, 45);
  EXPECT_NEAR(cell.latencies.at("itl_ms").mean.value, 15, 1e-9);   // gaps 10 and 20
  EXPECT_NEAR(cell.latencies.at("tpot_ms").mean.value, 15, 1e-9);  // 30 / 2
  EXPECT_NEAR(cell.latencies.at("e2e_ms").mean.value, 76, 1e-9);
  EXPECT_NEAR(cell.duration_s, 0.181, 1e-9);  // 0 to 100 + 50 + 31
  EXPECT_NEAR(cell.total_tokens_per_s, 26 / 0.181, 1e-6);
  EXPECT_NEAR(cell.goodput_per_s, 1 / 0.181, 1e-6);
  EXPECT_NEAR(cell.goodput_share, 0.5, 1e-9);
}

TEST(RunFile, WhatIsWrittenIsReadBack) {
  const std::string path = testing::TempDir() + "/run.jsonl";
  Record r = MakeRecord(5, 7);
  r.error = "line\nbreak \"quoted\" \xff";
  r.conversation = 3;
  r.turn = 2;
  r.planned_cancel = true;
  r.server_queue_ms = 1.5;
  r.server_ttft_ms = 2.5;
  {
    auto writer = RunWriter::Open(path);
    ASSERT_TRUE(writer.ok());
    RunData run;
    run.scenario_yaml = "name: x";
    run.environment = {{"cpu", "fast"}};
    (*writer)->Begin(run);
    (*writer)->Add(r);
    (*writer)->Add(BlockSample{.arm = "a", .offered = 2.5, .limited = "no"});
    (*writer)->Add(ResourceSample{.arm = "a", .rss_bytes = 77});
    (*writer)->Add(FaultEvent{"a", "stall", 1, 2});
    (*writer)->End("complete");
  }
  const auto run = ReadRun(path);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_FALSE(run->partial);
  ASSERT_EQ(run->records.size(), 1U);
  const Record& back = run->records[0];
  EXPECT_EQ(ToLine(back), ToLine(r).replace(ToLine(r).find("\xEF\xBF\xBD"), 3, "\xEF\xBF\xBD"));
  EXPECT_EQ(back.token_ns, r.token_ns);
  EXPECT_EQ(back.turn, 2);
  EXPECT_THAT(back.error, HasSubstr("line\nbreak \"quoted\""));
  EXPECT_EQ(run->blocks.at(0).offered, 2.5);
  EXPECT_EQ(run->resources.at(0).rss_bytes, 77);
  EXPECT_EQ(run->faults.at(0).action, "stall");
}

TEST(RunFile, AKilledRunKeepsItsWholeLines) {
  const std::string path = testing::TempDir() + "/killed.jsonl";
  std::ofstream(path)
      << R"({"type":"run","environment":{},"scenario":"s","quick":false,"overrides":[],"scenario_yaml":"name: x"})"
      << "\n"
      << ToLine(MakeRecord(1, 2)) << "\n"
      << ToLine(MakeRecord(3, 4)).substr(0, 50);
  const auto run = ReadRun(path);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_TRUE(run->partial);
  EXPECT_EQ(run->records.size(), 1U);
  std::ofstream(path) << "garbage\n{}\n";
  EXPECT_THAT(std::string(ReadRun(path).status().message()), HasSubstr("killed.jsonl:1:"));
}

TEST(Comparison, NamesAWinnerOnlyWhereTheIntervalsSaySo) {
  const auto winner = [](double slowdown) {
    Scenario scenario = Pair();
    scenario.kind = Scenario::Kind::kMeasure;
    const Summary summary = Summarize(PairedRun(slowdown, 4), scenario);
    return summary.comparisons.at(0).winner;
  };
  EXPECT_EQ(winner(1), "");
  EXPECT_EQ(winner(1.15), "old");
  EXPECT_EQ(winner(0.8), "new");
  Summary summary;
  summary.comparisons = {{.metric = "e2e_mean_ms", .arm = "b", .against = "a", .ratio = {1.001, 0.99, 1.01}}};
  const auto json = nlohmann::json::parse(ComparisonJson({.name = "m", .questions = 50}, summary));
  EXPECT_EQ(json.at("benchmark_type"), "fair_comparison");
  EXPECT_EQ(json.at("comparison").at(0).at("winner"), "none");
}

}  // namespace
}  // namespace sluice::loadtest
