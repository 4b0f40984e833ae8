#include "loadtest/stress.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fmt/format.h"
#include "loadtest/cells.h"

namespace sluice::loadtest {
namespace {

constexpr double kMemoryShare = 0.90, kRejectedShare = 0.05, kTimeoutShare = 0.05, kErrorShare = 0.10;
constexpr double kCpuShare = 0.95, kDegradedTtftMs = 2000;
constexpr size_t kFewestForSlope = 40;
constexpr double kRise = 2;
constexpr int64_t kFewest = 5;  // failures of a kind that say anything
constexpr double kWindowSeconds = 10;

double NumberOf(const Run& run, const std::string& key) {
  const auto it = run.environment.find(key);
  return it == run.environment.end() ? 0 : std::strtod(it->second.c_str(), nullptr);
}

double Share(const Cell& cell, const char* code) {
  const auto it = cell.errors.find(code);
  const int64_t counted = cell.succeeded + cell.failed;
  return it == cell.errors.end() || it->second < kFewest
             ? 0
             : static_cast<double>(it->second) / static_cast<double>(counted);
}

bool Crashed(const Run& run, const Cell& cell) {
  for (const BlockSample& b : run.blocks) {
    if (b.arm != cell.arm || b.level != cell.level) continue;
    for (const ResourceSample& s : run.resources) {
      if (s.arm == cell.arm && !s.alive && s.at_ns >= b.start_ns && s.at_ns <= b.end_ns + 1'500'000'000) return true;
    }
  }
  return false;
}

bool ClientLimited(const Run& run, const Cell& cell) {
  return std::any_of(run.blocks.begin(), run.blocks.end(), [&](const BlockSample& b) {
    return b.arm == cell.arm && b.level == cell.level && !b.limited.empty();
  });
}

std::vector<const Record*> RecordsOf(const Run& run, const Cell& cell) {
  std::vector<const Record*> records;
  for (const Record& r : run.records) {
    if (!r.warmup && r.arm == cell.arm && r.level == cell.level) records.push_back(&r);
  }
  return records;
}

// Of the second members; not empty.
double MedianOf(const std::vector<std::pair<double, double>>& points) {
  std::vector<double> values;
  for (const auto& p : points) values.push_back(p.second);
  std::sort(values.begin(), values.end());
  return Percentile(values, 0.5);
}

// Relative growth over the whole span, from (seconds, value) points.
Estimate Growth(const std::vector<double>& x, const std::vector<double>& y) {
  const Estimate slope = TheilSen(x, y);
  if (!slope.known()) return {};
  std::vector<double> sorted = y;
  std::sort(sorted.begin(), sorted.end());
  const double scale = (x.back() - x.front()) / Percentile(sorted, 0.5);
  return {slope.value * scale, slope.low * scale, slope.high * scale};
}

CheckResult DriftCheck(const std::string& what, const Estimate& growth, double limit) {
  CheckResult check{
      .text = fmt::format("{} ≤ {:g} (relative, over the run)", what, limit), .value = growth, .limit = limit};
  if (!growth.known()) {
    check.note = "not measured: fewer than three windows";
    return check;
  }
  check.verdict = growth.high <= limit ? Verdict::kBeaten : growth.low <= limit ? Verdict::kReached : Verdict::kMissed;
  return check;
}

}  // namespace

bool Saturated(const std::vector<const Record*>& records) {
  std::vector<double> at, ttft, flight_at, flight;
  std::vector<std::pair<int64_t, int>> edges;
  int64_t last_scheduled = 0;
  for (const Record* r : records) {
    if (r->sent_ns < 0 || r->done_ns < 0) continue;
    edges.emplace_back(r->sent_ns, 1);
    edges.emplace_back(r->done_ns, -1);
    last_scheduled = std::max(last_scheduled, r->scheduled_ns);
    if (const double v = TtftMs(*r); r->ok() && v == v) {
      at.push_back(1e-9 * static_cast<double>(r->scheduled_ns));
      ttft.push_back(v);
    }
  }
  std::sort(edges.begin(), edges.end());
  int64_t now = 0;
  for (const auto& [when, change] : edges) {
    now += change;
    if (when > last_scheduled) break;  // draining
    flight_at.push_back(1e-9 * static_cast<double>(when));
    flight.push_back(static_cast<double>(now));
  }
  if (at.size() < kFewestForSlope) return false;
  std::vector<std::pair<double, double>> by_time;
  for (size_t i = 0; i < at.size(); ++i) by_time.emplace_back(at[i], ttft[i]);
  std::sort(by_time.begin(), by_time.end());
  const Estimate of_ttft = Slope(at, ttft), of_flight = Slope(flight_at, flight);
  if (!of_ttft.known() || !of_flight.known() || !(of_ttft.low > 0) || !(of_flight.low > 0)) return false;
  // Queues wander by themselves: the rise must also be large, from the first third of the requests to the last.
  const size_t third = by_time.size() / 3;
  return MedianOf({by_time.end() - static_cast<long>(third), by_time.end()}) >
         kRise * MedianOf({by_time.begin(), by_time.begin() + static_cast<long>(third)});
}

std::string FailureMode(const Run& run, const Cell& cell) {
  if (Crashed(run, cell)) return "crash";
  if (ClientLimited(run, cell)) return "client_limited";
  const double memory = NumberOf(run, "memory_limit_mb");
  if (memory > 0 && cell.rss_peak_mb > kMemoryShare * memory) return "out_of_memory";
  if (Share(cell, "RESOURCE_EXHAUSTED") > kRejectedShare) return "admission_rejected";
  if (Share(cell, "DEADLINE_EXCEEDED") > kTimeoutShare) return "timeout";
  if (cell.failed >= kFewest && cell.error_rate.value > kErrorShare) return "high_error_rate";
  if (Saturated(RecordsOf(run, cell))) return "saturated";
  const double cores = NumberOf(run, "cores"), p95 = ScalarOf(cell, "ttft_p95_ms").value;
  if (cores > 0 && cell.cpu_percent > kCpuShare * 100 * cores && p95 > kDegradedTtftMs) return "resource_exhaustion";
  return "none";
}

void JudgeStress(const Run& run, const Scenario& scenario, Summary& summary) {
  for (Cell& cell : summary.cells) cell.failure_mode = FailureMode(run, cell);
  for (const EngineSpec& engine : scenario.engines) {
    const Cell* good = nullptr;
    const Cell* broken = nullptr;
    for (const Cell& cell : summary.cells) {
      if (cell.arm != engine.name || broken != nullptr) continue;
      (cell.failure_mode == "none" ? good : broken) = &cell;
    }
    const std::string last = good == nullptr
                                 ? "no level was sustained"
                                 : fmt::format("last good level: {:g}{} ({:.2f} requests/s served)", good->offered,
                                               good->open_loop ? " requests/s" : " streams", good->requests_per_s);
    summary.notes.push_back(
        broken == nullptr ? fmt::format("{}: no breaking point up to the last level; {}", engine.name, last)
                          : fmt::format("{}: breaks at {:g}{}: {}; {}", engine.name, broken->offered,
                                        broken->open_loop ? " requests/s" : " streams", broken->failure_mode, last));
  }
}

void JudgeDrift(const Run& run, const Scenario& scenario, Summary& summary) {
  for (const EngineSpec& engine : scenario.engines) {
    std::map<int64_t, std::vector<double>> windows;
    for (const Record& r : run.records) {
      if (r.warmup || !r.ok() || r.arm != engine.name || r.token_ns.empty()) continue;
      windows[static_cast<int64_t>(1e-9 * static_cast<double>(r.scheduled_ns) / kWindowSeconds)].push_back(TtftMs(r));
    }
    if (windows.size() > 2) windows.erase(std::prev(windows.end()));  // not whole
    std::vector<double> x, y;
    for (auto& [window, values] : windows) {
      std::sort(values.begin(), values.end());
      x.push_back(static_cast<double>(window) * kWindowSeconds);
      y.push_back(Percentile(values, 0.95));
    }
    summary.checks.push_back(DriftCheck(engine.name + " growth of TTFT p95", Growth(x, y), scenario.tolerance));
    std::vector<double> at, rss;
    for (const ResourceSample& s : run.resources) {
      if (s.arm != engine.name || !s.alive || s.rss_bytes == 0) continue;
      at.push_back(1e-9 * static_cast<double>(s.at_ns));
      rss.push_back(static_cast<double>(s.rss_bytes));
    }
    if (!engine.start.empty()) {
      summary.checks.push_back(DriftCheck(engine.name + " growth of RSS", Growth(at, rss), scenario.tolerance));
    }
  }
}

}  // namespace sluice::loadtest
