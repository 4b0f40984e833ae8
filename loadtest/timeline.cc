#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "loadtest/cells.h"

namespace sluice::loadtest {
namespace {

double At(int64_t ns) { return std::floor(1e-9 * static_cast<double>(ns)); }

void AddRecord(const Record& r, std::map<double, Second>& seconds, std::map<double, std::vector<double>>& ttfts) {
  ++seconds[At(r.sent_ns)].started;
  Second& end = seconds[At(r.done_ns)];
  ++(r.ok() || r.planned_cancel ? end.completed : end.failed);
  if (r.token_ns.empty()) return;
  if (r.ok()) ttfts[At(r.scheduled_ns)].push_back(TtftMs(r));
  // Messages may hold several tokens: spread the server's count over them.
  const double each =
      r.output_tokens > 0 ? static_cast<double>(r.output_tokens) / static_cast<double>(r.token_ns.size()) : 1;
  std::map<double, double> tokens;
  for (const int64_t t : r.token_ns) tokens[At(t)] += each;
  for (const auto& [at, count] : tokens) seconds[at].output_tokens += std::llround(count);
}

std::vector<Second> OfArm(const Run& run, const std::string& arm) {
  std::map<double, Second> seconds;
  std::map<double, std::vector<double>> ttfts;
  std::map<double, int64_t> flight;  // changes
  for (const Record& r : run.records) {
    if (r.arm != arm || r.sent_ns < 0 || r.done_ns < 0) continue;
    AddRecord(r, seconds, ttfts);
    ++flight[At(r.sent_ns)];
    --flight[At(r.done_ns) + 1];
  }
  // Seconds of a block in which nothing began or ended are part of it: a stall is no gap.
  for (const BlockSample& b : run.blocks) {
    for (double at = At(b.start_ns); b.arm == arm && at <= At(b.end_ns); ++at) seconds[at];
  }
  for (const ResourceSample& s : run.resources) {
    if (s.arm != arm) continue;
    const auto it = seconds.find(At(s.at_ns));
    if (it == seconds.end()) continue;
    it->second.cpu_percent = s.cpu_percent;
    it->second.rss_mb = static_cast<double>(s.rss_bytes) / (1 << 20);
  }
  std::vector<Second> out;
  int64_t in_flight = 0;
  auto change = flight.begin();
  for (auto& [at, second] : seconds) {
    for (; change != flight.end() && change->first <= at; ++change) in_flight += change->second;
    second.at_s = at;
    second.in_flight = in_flight;
    if (auto it = ttfts.find(at); it != ttfts.end()) {
      std::sort(it->second.begin(), it->second.end());
      second.ttft_p95_ms = Percentile(it->second, 0.95);
    }
    out.push_back(second);
  }
  return out;
}

}  // namespace

std::map<std::string, std::vector<Second>> MakeTimeline(const Run& run) {
  std::set<std::string> arms;
  for (const Record& r : run.records) arms.insert(r.arm);
  std::map<std::string, std::vector<Second>> timeline;
  for (const std::string& arm : arms) timeline[arm] = OfArm(run, arm);
  return timeline;
}

}  // namespace sluice::loadtest
