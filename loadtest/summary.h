// What a run amounts to: a pure function of its records and its scenario. Every renderer reads this and nothing else.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "loadtest/record.h"
#include "loadtest/scenario.h"
#include "loadtest/statistics.h"

namespace sluice::loadtest {

// Percentiles that reports show.
inline constexpr std::array<int, 4> kPercentiles = {50, 90, 95, 99};

// One latency over the requests that have it. Names and formulas: MetricFormulas().
struct Latency {
  int64_t count = 0;
  Estimate mean;
  double stddev = 0, min = kNan, max = kNan;
  std::array<Estimate, kPercentiles.size()> percentiles;  // as kPercentiles
};

// One second of one arm.
struct Second {
  double at_s = 0;
  int64_t started = 0, completed = 0, failed = 0, in_flight = 0, output_tokens = 0;
  double ttft_p95_ms = kNan;  // of the requests that started in it
  double cpu_percent = kNan, rss_mb = kNan;
};

// What the requests of one priority class got.
struct ClassCell {
  int64_t requests = 0, succeeded = 0, failed = 0;
  double goodput_share = kNan;  // successful within every SLO, of those not cancelled; NaN without SLOs
  Estimate ttft_p50, ttft_p95;  // ms, of successes
};

// One arm at one level (most runs have one level), warm-up left out.
struct Cell {
  std::string arm;
  int level = 0;
  double offered = 0;  // requests/s, or streams of a closed loop
  bool open_loop = false;
  int blocks = 0;
  double duration_s = 0;  // first scheduled to last done, summed over blocks

  int64_t requests = 0, succeeded = 0, failed = 0, cancelled = 0;  // cancelled: as planned, neither of the others
  std::map<std::string, int64_t> errors;                           // status code name → count
  std::map<std::string, std::string> error_examples;               // status code name → one message
  Estimate error_rate;                                             // failed / (succeeded + failed)
  std::map<std::string, int64_t> pipelines;                        // as the trailers said

  // By metric name: ttft_ms, ttft_from_sent_ms, itl_ms, tpot_ms, e2e_ms, queue_ms, client_queue_ms, server_ttft_ms.
  std::map<std::string, Latency> latencies;
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;  // of successful requests
  double requests_per_s = kNan, output_tokens_per_s = kNan, total_tokens_per_s = kNan;
  double goodput_per_s = kNan, goodput_share = kNan;  // successful within every SLO; NaN without SLOs
  int64_t peak_concurrency = 0;
  // Of the engine's process; NaN when the tool did not start it. CPU in percent of one core; share: of all cores.
  double cpu_percent = kNan, cpu_share = kNan, rss_peak_mb = kNan;
  double generator_cpu_percent = kNan, lag_p50_ms = kNan, lag_p99_ms = kNan;
  std::map<std::string, ClassCell> classes;  // by name, "default" where none was asked for; empty: there was only one
  std::string failure_mode = "none";         // stress runs

  std::map<std::string, std::vector<double>> per_block;  // scalar metric (see ScalarOf) → one value a block
  std::vector<std::pair<double, double>> ttft_ecdf;      // ms, share; at most 200 points
};

enum class Verdict { kBeaten, kReached, kMissed, kInvalid };
const char* VerdictName(Verdict v);  // "beaten", "reached", "missed", "invalid"

struct CheckResult {
  std::string text;  // "ttft p95, ttft / baseline ≤ 0.90"
  Estimate value;
  double limit = kNan;
  Verdict verdict = Verdict::kInvalid;
  std::string note;  // stretch goals, or why it is invalid
};

// One scalar of one arm against the same of the first arm (or of the stored baseline).
struct Comparison {
  std::string metric, arm, against;
  double value = kNan, against_value = kNan;
  Estimate ratio;      // value / against_value
  std::string winner;  // arm, against, or "" where the interval holds 1 (or is within 3 %: equal)
};

struct Summary {
  std::map<std::string, std::string> environment;
  std::string scenario, description, kind;
  uint64_t seed = 0;
  bool quick = false, partial = false;
  std::string ended;
  std::vector<std::string> arms;
  std::vector<Cell> cells;  // arms in order within each level
  std::vector<Comparison> comparisons;
  std::vector<CheckResult> checks;
  std::vector<std::string> invalid;                     // why the run must not be believed; empty: valid
  std::map<std::string, std::vector<Second>> timeline;  // by arm
  std::vector<FaultEvent> faults;
  std::vector<std::string> notes;  // breaking point, recovery times, ...

  const Cell* Find(const std::string& arm, int level) const;
  // 0: all checks reached; 1: one missed; 2: the run or a check is invalid.
  int exit_code() const;
};

Summary Summarize(const Run& run, const Scenario& scenario);

// Value of a cell's scalar by its name in checks: "ttft_p95_ms", "e2e_mean_ms", "itl_p99_ms", "requests_per_s",
// "error_rate", "peak_concurrency", "cpu_percent", "goodput_per_s", ...; not known() when it was not measured.
Estimate ScalarOf(const Cell& cell, const std::string& metric);
// True for names that ScalarOf can ever know.
bool IsScalar(const std::string& metric);
std::vector<std::string> ScalarNames();
// False: less is better, as with latencies, errors and resources.
bool MoreIsBetter(const std::string& scalar);
// metric → its formula, for reports.
const std::vector<std::pair<std::string, std::string>>& MetricFormulas();

}  // namespace sluice::loadtest
