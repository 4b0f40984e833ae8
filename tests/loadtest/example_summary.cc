#include "tests/loadtest/example_summary.h"

#include <cmath>
#include <random>

namespace sluice::loadtest {
namespace {

constexpr int kBlocks = 5;
constexpr double kCapacity = 14;  // requests/s

Latency LatencyAround(double median, int64_t count, double spread) {
  Latency latency{.count = count, .mean = {median * 1.2, median * 1.15, median * 1.25}, .stddev = median * spread};
  latency.min = median * 0.4;
  latency.max = median * 4.5;
  const double factors[] = {1, 1.7, 2.2, 3.6};
  for (size_t i = 0; i < latency.percentiles.size(); ++i) {
    const double value = median * factors[i], half = value * 0.03 * static_cast<double>(i + 1);
    latency.percentiles[i] = {value, value - half, value + half};
  }
  latency.percentiles.back().high = INFINITY;
  return latency;
}

Cell CellAt(const std::string& arm, int level, double speed, std::mt19937_64& random) {
  Cell cell{.arm = arm, .level = level, .offered = 2.0 * (level + 1), .open_loop = true, .blocks = kBlocks};
  const double load = cell.offered / kCapacity / speed, served = std::min(cell.offered, kCapacity * speed);
  const double median = load < 1 ? 60 / speed / (1.05 - load) : 2000 / speed * load;
  cell.duration_s = 50;
  cell.requests = static_cast<int64_t>(cell.offered * cell.duration_s);
  cell.failed = load > 0.9 ? cell.requests / 20 : 0;
  cell.cancelled = 3;
  cell.succeeded = cell.requests - cell.failed - cell.cancelled;
  cell.error_rate = {static_cast<double>(cell.failed) / static_cast<double>(cell.requests), 0, 0.08};
  if (cell.failed > 0) {
    cell.errors = {{"RESOURCE_EXHAUSTED", cell.failed - 2}, {"DEADLINE_EXCEEDED", 2}};
    cell.error_examples = {{"RESOURCE_EXHAUSTED", "queue is full: 64 requests wait; retry in 850 ms"},
                           {"DEADLINE_EXCEEDED", "Deadline Exceeded"}};
    cell.failure_mode = "admission_rejected";
  }
  cell.pipelines = {{arm, cell.succeeded}};
  cell.latencies["ttft_ms"] = LatencyAround(median, cell.succeeded, 0.4);
  cell.latencies["itl_ms"] = LatencyAround(12 / speed, cell.succeeded * 31, 0.3);
  cell.latencies["tpot_ms"] = LatencyAround(13 / speed, cell.succeeded, 0.1);
  cell.latencies["e2e_ms"] = LatencyAround(median + 420 / speed, cell.succeeded, 0.2);
  cell.latencies["queue_ms"] = LatencyAround(median * 0.6, cell.succeeded, 0.5);
  cell.output_tokens = cell.succeeded * 32;
  cell.prompt_tokens = cell.succeeded * 128;
  cell.requests_per_s = served;
  cell.output_tokens_per_s = served * 32;
  cell.total_tokens_per_s = served * 160;
  cell.goodput_per_s = load < 0.8 ? served : served * std::max(0.0, 1.8 - load) / 1.4;
  cell.goodput_share = cell.goodput_per_s / cell.offered;
  cell.peak_concurrency = static_cast<int64_t>(4 + load * 20);
  cell.cpu_percent = std::min(195.0, load * 190);
  cell.rss_peak_mb = 812;
  cell.generator_cpu_percent = 6.25;
  cell.lag_p50_ms = 0.07;
  cell.lag_p99_ms = 0.9;
  std::normal_distribution<double> noise(1, 0.05);
  for (int i = 0; i < kBlocks; ++i) cell.per_block["ttft_p95_ms"].push_back(median * 2.2 * noise(random));
  for (int i = 1; i <= 100; ++i)
    cell.ttft_ecdf.emplace_back(median * std::exp(0.5 * std::log(i / (100.5 - i))), i / 100.0);
  return cell;
}

// The arms run in turn, ten seconds each.
void AddTimeline(Summary& summary, std::mt19937_64& random) {
  std::poisson_distribution<int> arrivals(8);
  for (size_t arm = 0; arm < summary.arms.size(); ++arm) {
    for (int s = 0; s < 100; ++s) {
      if (s / 10 % 2 != static_cast<int>(arm)) continue;
      const bool stalled = s >= 43 && s < 46;
      Second second{
          .at_s = static_cast<double>(s), .started = arrivals(random), .completed = stalled ? 0 : arrivals(random)};
      second.in_flight = stalled ? 30 : 6 + arrivals(random) / 2;
      second.output_tokens = second.completed * 32;
      second.failed = s == 46 ? 4 : 0;
      second.ttft_p95_ms = stalled ? kNan : 150 + 10 * arrivals(random) - 40.0 * static_cast<double>(arm);
      second.cpu_percent = stalled ? 0 : 150 + 3 * arrivals(random);
      second.rss_mb = 780 + s * 0.3;
      summary.timeline[summary.arms[arm]].push_back(second);
    }
  }
  summary.faults.push_back({summary.arms[0], "stall", 43'000'000'000, 46'000'000'000});
}

}  // namespace

Summary ExampleSummary(int levels) {
  std::mt19937_64 random(7);
  Summary summary{.scenario = "shared-prefix", .kind = "measure", .seed = 42, .ended = "complete"};
  summary.description = "A shared system prompt of 96 tokens, Poisson arrivals: does the ttft pipeline answer sooner?";
  summary.environment = {{"cpu", "Example CPU, 2 cores, AVX512-VNNI"},
                         {"model", "SmolLM2-135M-Instruct.Q8_0.gguf"},
                         {"command", "sluice-bench run shared-prefix --seed 42"},
                         {"sluice", "3982e64"}};
  summary.arms = {"baseline", "ttft"};
  for (int level = 0; level < levels; ++level) {
    summary.cells.push_back(CellAt("baseline", level, 1, random));
    summary.cells.push_back(CellAt("ttft", level, 1.35, random));
  }
  summary.comparisons = {{"ttft_p95_ms", "ttft", "baseline", 118, 152, {0.776, 0.741, 0.813}, "ttft"},
                         {"output_tokens_per_s", "ttft", "baseline", 64, 64, {1.0, 0.99, 1.01}, ""},
                         {"itl_p99_ms", "ttft", "baseline", kNan, kNan, {}, ""}};
  summary.checks = {{"ttft ttft_p95_ms, ratio to baseline, ≤ 0.9",
                     {0.776, 0.741, 0.813},
                     0.9,
                     Verdict::kBeaten,
                     "stretch 0.8: reached"},
                    {"ttft e2e_p99_ms ≤ 2000", {1210, 1101, INFINITY}, 2000, Verdict::kReached, ""},
                    {"baseline error_rate ≤ 0.01", {0.02, 0.011, 0.04}, 0.01, Verdict::kMissed, ""}};
  AddTimeline(summary, random);
  summary.notes = {"baseline: breaking point at 14 requests/s (admission_rejected), last good level 12",
                   "baseline after stall: first success 41 ms after the fault ended; 4 requests failed meanwhile"};
  return summary;
}

}  // namespace sluice::loadtest
