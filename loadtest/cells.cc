#include "loadtest/cells.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace sluice::loadtest {
namespace {

constexpr size_t kEcdfPoints = 200;

double Ms(int64_t ns) { return 1e-6 * static_cast<double>(ns); }

struct Metric {
  const char* name;
  const char* formula;
  std::function<double(const Record&)> value;  // NaN: this record has none
};

double NonNegative(double v) { return v >= 0 ? v : kNan; }

const std::vector<Metric>& Metrics() {
  static const std::vector<Metric> metrics = {
      {"ttft_ms", "first message with text or tokens − scheduled moment", TtftMs},
      {"ttft_from_sent_ms", "first message with text or tokens − sent (hides what the generator or a stall held back)",
       [](const Record& r) { return r.token_ns.empty() ? kNan : Ms(r.first_token_ns() - r.sent_ns); }},
      {"tpot_ms", "(last message − first message) / (output tokens − 1), per request with two tokens or more", TpotMs},
      {"e2e_ms", "status received − scheduled moment", E2eMs},
      {"queue_ms", "the server's own: arrival to first scheduled step",
       [](const Record& r) { return NonNegative(r.server_queue_ms); }},
      {"server_ttft_ms", "the server's own: arrival to first token",
       [](const Record& r) { return NonNegative(r.server_ttft_ms); }},
      {"client_queue_ms", "sent − scheduled moment", [](const Record& r) { return Ms(r.sent_ns - r.scheduled_ns); }}};
  return metrics;
}

constexpr const char* kItl = "itl_ms";
constexpr const char* kItlFormula =
    "time between successive messages with text, all gaps of all requests pooled (several tokens may share a message)";

Latency LatencyOf(std::vector<double> values) {
  Latency l;
  l.count = static_cast<int64_t>(values.size());
  if (values.empty()) return l;
  l.mean = MeanEstimate(values);
  l.stddev = StdDev(values);
  std::sort(values.begin(), values.end());
  l.min = values.front();
  l.max = values.back();
  for (size_t i = 0; i < kPercentiles.size(); ++i)
    l.percentiles[i] = PercentileEstimate(values, kPercentiles[i] / 100.0);
  return l;
}

std::vector<float> GapsOf(const Record& r) {
  std::vector<float> gaps;
  for (size_t i = 1; i < r.token_ns.size(); ++i) {
    gaps.push_back(static_cast<float>(Ms(r.token_ns[i] - r.token_ns[i - 1])));
  }
  return gaps;
}

// Gaps of one request are not independent: intervals by resampling requests.
void AddGroupedIntervals(const std::vector<std::vector<float>>& groups, uint64_t seed, Latency& l) {
  std::vector<double> means;
  for (const std::vector<float>& gaps : groups) {
    means.push_back(std::accumulate(gaps.begin(), gaps.end(), 0.0) / static_cast<double>(gaps.size()));
  }
  const double pooled = l.mean.value;
  const Estimate of_means = MeanEstimate(means);  // width between requests, around the pooled mean
  l.mean = {pooled, of_means.low + pooled - of_means.value, of_means.high + pooled - of_means.value};
  for (size_t i = 0; i < kPercentiles.size(); ++i) {
    l.percentiles[i] = GroupedPercentile(groups, kPercentiles[i] / 100.0, seed);
  }
}

int64_t PeakConcurrency(const std::vector<const Record*>& records) {
  std::vector<std::pair<int64_t, int>> edges;
  for (const Record* r : records) {
    edges.emplace_back(r->sent_ns, 1);
    edges.emplace_back(r->done_ns, -1);
  }
  std::sort(edges.begin(), edges.end());
  int64_t now = 0, peak = 0;
  for (const auto& [at, change] : edges) peak = std::max(peak, now += change);
  return peak;
}

void CountOutcomes(const std::vector<const Record*>& records, Cell& cell) {
  for (const Record* r : records) {
    ++cell.requests;
    if (r->ok()) {
      ++cell.succeeded;
      ++cell.pipelines[r->pipeline];
      cell.prompt_tokens += std::max<int64_t>(0, r->prompt_tokens);
      cell.cached_tokens += std::max<int64_t>(0, r->cached_tokens);
      cell.output_tokens += std::max<int64_t>(0, r->output_tokens);
    } else if (r->planned_cancel && r->code == absl::StatusCode::kCancelled) {
      ++cell.cancelled;
    } else {
      ++cell.failed;
      const std::string name = absl::StatusCodeToString(r->code);
      ++cell.errors[name];
      cell.error_examples.try_emplace(name, r->error);
    }
  }
  cell.error_rate = ShareEstimate(cell.failed, cell.failed + cell.succeeded);
}

// Rates over the time from the first scheduled moment to the last end, of each block.
void AddRates(const std::vector<const Record*>& records, const SloSpec& slo, Cell& cell) {
  std::map<int, std::pair<int64_t, int64_t>> spans;
  int64_t good = 0;
  for (const Record* r : records) {
    auto [it, first] = spans.try_emplace(r->block, r->scheduled_ns, r->done_ns);
    it->second.first = std::min(it->second.first, r->scheduled_ns);
    it->second.second = std::max(it->second.second, r->done_ns);
    good += r->ok() && WithinSlo(*r, slo) ? 1 : 0;
  }
  for (const auto& [block, span] : spans) cell.duration_s += 1e-9 * static_cast<double>(span.second - span.first);
  cell.blocks = static_cast<int>(spans.size());
  if (cell.duration_s <= 0) return;
  cell.requests_per_s = static_cast<double>(cell.succeeded) / cell.duration_s;
  cell.output_tokens_per_s = static_cast<double>(cell.output_tokens) / cell.duration_s;
  cell.total_tokens_per_s = static_cast<double>(cell.output_tokens + cell.prompt_tokens) / cell.duration_s;
  if (!slo.any()) return;
  cell.goodput_per_s = static_cast<double>(good) / cell.duration_s;
  cell.goodput_share =
      static_cast<double>(good) / static_cast<double>(std::max<int64_t>(1, cell.requests - cell.cancelled));
}

// `grouped`: the gaps' intervals, which cost more than all the rest.
void AddLatencies(const std::vector<const Record*>& records, bool grouped, uint64_t seed, Cell& cell) {
  std::vector<const Record*> succeeded;
  for (const Record* r : records) {
    if (r->ok() && !r->slow_reader) succeeded.push_back(r);  // a slow reader measures itself
  }
  for (const Metric& metric : Metrics()) {
    std::vector<double> values;
    for (const Record* r : succeeded) {
      if (const double v = metric.value(*r); v == v) values.push_back(v);
    }
    if (!values.empty()) cell.latencies[metric.name] = LatencyOf(std::move(values));
  }
  std::vector<std::vector<float>> groups;
  std::vector<double> all;
  for (const Record* r : succeeded) {
    if (r->token_ns.size() < 2) continue;
    groups.push_back(GapsOf(*r));
    all.insert(all.end(), groups.back().begin(), groups.back().end());
  }
  if (all.empty()) return;
  Latency& gaps = cell.latencies[kItl] = LatencyOf(std::move(all));
  if (grouped) AddGroupedIntervals(groups, seed, gaps);
}

void AddEcdf(const std::vector<const Record*>& records, Cell& cell) {
  std::vector<double> ttft;
  for (const Record* r : records) {
    if (const double v = TtftMs(*r); r->ok() && v == v) ttft.push_back(v);
  }
  std::sort(ttft.begin(), ttft.end());
  const size_t n = ttft.size(), stride = std::max<size_t>(1, n / kEcdfPoints);
  for (size_t i = 0; i < n; i += stride)
    cell.ttft_ecdf.emplace_back(ttft[i], static_cast<double>(i + 1) / static_cast<double>(n));
  if (n > 0 && cell.ttft_ecdf.back().second < 1) cell.ttft_ecdf.emplace_back(ttft.back(), 1);
}

// What the tool saw of the engine's process and of itself while the cell's blocks were measured.
void AddResources(const Run& run, Cell& cell) {
  double cpu = 0, rss = 0, own = 0, lag50 = 0, lag99 = 0;
  int64_t samples = 0, blocks = 0;
  for (const BlockSample& b : run.blocks) {
    if (b.arm != cell.arm || b.level != cell.level) continue;
    ++blocks;
    own += b.cpu_percent;
    lag50 = std::max(lag50, b.lag_p50_ms);
    lag99 = std::max(lag99, b.lag_p99_ms);
    cell.offered = b.offered;
    cell.open_loop = b.open_loop;
    for (const ResourceSample& s : run.resources) {
      if (s.arm != cell.arm || s.at_ns < b.start_ns || s.at_ns > b.end_ns || !s.alive) continue;
      ++samples;
      cpu += s.cpu_percent;
      rss = std::max(rss, static_cast<double>(s.rss_bytes) / (1 << 20));
    }
  }
  if (blocks > 0) {
    cell.generator_cpu_percent = own / static_cast<double>(blocks);
    cell.lag_p50_ms = lag50;
    cell.lag_p99_ms = lag99;
  }
  if (samples == 0) return;
  cell.cpu_percent = cpu / static_cast<double>(samples);
  cell.rss_peak_mb = rss;
  const auto cores = run.environment.find("cores");
  if (cores != run.environment.end())
    cell.cpu_share = cell.cpu_percent / 100 / std::max(1, std::atoi(cores->second.c_str()));
}

void AddClasses(const std::vector<const Record*>& records, const Scenario& scenario, Cell& cell) {
  std::map<std::string, std::vector<const Record*>> groups;
  for (const Record* r : records) groups[r->priority_class.empty() ? "default" : r->priority_class].push_back(r);
  if (groups.size() < 2) return;
  for (const auto& [name, of_class] : groups) {
    Cell alone{.arm = cell.arm, .level = cell.level};
    CountOutcomes(of_class, alone);
    AddRates(of_class, scenario.slo, alone);
    AddLatencies(of_class, /*grouped=*/false, scenario.seed, alone);
    cell.classes[name] = {.requests = alone.requests,
                          .succeeded = alone.succeeded,
                          .failed = alone.failed,
                          .goodput_share = alone.goodput_share,
                          .ttft_p50 = ScalarOf(alone, "ttft_p50_ms"),
                          .ttft_p95 = ScalarOf(alone, "ttft_p95_ms")};
  }
}

Cell MakeCell(const Run& run, const Scenario& scenario, const std::string& arm, int level,
              const std::vector<const Record*>& records) {
  Cell cell{.arm = arm, .level = level};
  CountOutcomes(records, cell);
  AddRates(records, scenario.slo, cell);
  AddLatencies(records, /*grouped=*/true, scenario.seed, cell);
  AddEcdf(records, cell);
  AddClasses(records, scenario, cell);
  cell.peak_concurrency = PeakConcurrency(records);
  AddResources(run, cell);
  return cell;
}

// The scalars of each block alone, for comparisons between interleaved blocks.
void AddPerBlock(const Scenario& scenario, const std::vector<const Record*>& records, Cell& cell) {
  std::map<int, std::vector<const Record*>> blocks;
  for (const Record* r : records) blocks[r->block].push_back(r);
  std::vector<Cell> alone;
  for (const auto& [block, of_block] : blocks) {
    Cell c{.arm = cell.arm, .level = cell.level};
    CountOutcomes(of_block, c);
    AddRates(of_block, scenario.slo, c);
    AddLatencies(of_block, /*grouped=*/false, scenario.seed, c);
    alone.push_back(std::move(c));
  }
  for (const std::string& name : ScalarNames()) {
    std::vector<double> values;
    for (const Cell& c : alone) values.push_back(ScalarOf(c, name).value);
    const bool all = std::none_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
    if (!values.empty() && all) cell.per_block[name] = std::move(values);
  }
}

}  // namespace

double TtftMs(const Record& r) { return r.token_ns.empty() ? kNan : Ms(r.first_token_ns() - r.scheduled_ns); }

double TpotMs(const Record& r) {
  if (r.output_tokens < 2 || r.token_ns.empty()) return kNan;
  return Ms(r.last_token_ns() - r.first_token_ns()) / static_cast<double>(r.output_tokens - 1);
}

double E2eMs(const Record& r) { return r.done_ns < 0 ? kNan : Ms(r.done_ns - r.scheduled_ns); }

bool WithinSlo(const Record& r, const SloSpec& slo) {
  const auto within = [](double value, double limit) { return limit <= 0 || !(value > limit); };
  return within(TtftMs(r), slo.ttft_ms) && within(TpotMs(r), slo.tpot_ms) && within(E2eMs(r), slo.e2e_ms);
}

std::vector<Cell> MakeCells(const Run& run, const Scenario& scenario) {
  std::map<std::pair<int, std::string>, std::vector<const Record*>> groups;
  for (const Record& r : run.records) {
    if (!r.warmup) groups[{r.level, r.arm}].push_back(&r);
  }
  std::vector<Cell> cells;
  int levels = 0;
  for (const auto& [key, records] : groups) levels = std::max(levels, key.first + 1);
  for (int level = 0; level < levels; ++level) {
    for (const EngineSpec& engine : scenario.engines) {
      const auto it = groups.find({level, engine.name});
      if (it == groups.end()) continue;
      cells.push_back(MakeCell(run, scenario, engine.name, level, it->second));
      AddPerBlock(scenario, it->second, cells.back());
    }
  }
  return cells;
}

std::vector<std::string> ScalarNames() {
  std::vector<std::string> names = {"requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput_per_s",
                                    "goodput_share",  "error_rate",          "peak_concurrency",   "cpu_percent",
                                    "cpu_share",      "rss_peak_mb",         "success_rate"};
  std::vector<std::string> latencies = {kItl};
  for (const Metric& m : Metrics()) latencies.emplace_back(m.name);
  for (const std::string& latency : latencies) {
    const std::string stem = latency.substr(0, latency.size() - 3);
    names.push_back(stem + "_mean_ms");
    for (const int p : kPercentiles) names.push_back(stem + "_p" + std::to_string(p) + "_ms");
  }
  return names;
}

bool MoreIsBetter(const std::string& scalar) {
  return scalar.ends_with("_per_s") || scalar == "goodput_share" || scalar == "success_rate" ||
         scalar == "peak_concurrency";
}

bool IsScalar(const std::string& metric) {
  const std::vector<std::string> names = ScalarNames();
  return std::find(names.begin(), names.end(), metric) != names.end();
}

Estimate ScalarOf(const Cell& cell, const std::string& metric) {
  const auto plain = [](double v) { return Estimate{v, kNan, kNan}; };
  if (metric == "requests_per_s") return plain(cell.requests_per_s);
  if (metric == "output_tokens_per_s") return plain(cell.output_tokens_per_s);
  if (metric == "total_tokens_per_s") return plain(cell.total_tokens_per_s);
  if (metric == "goodput_per_s") return plain(cell.goodput_per_s);
  if (metric == "goodput_share") return plain(cell.goodput_share);
  if (metric == "error_rate") return cell.error_rate;
  if (metric == "success_rate") return plain(cell.error_rate.known() ? 1 - cell.error_rate.value : kNan);
  if (metric == "peak_concurrency") return plain(static_cast<double>(cell.peak_concurrency));
  if (metric == "cpu_percent") return plain(cell.cpu_percent);
  if (metric == "cpu_share") return plain(cell.cpu_share);
  if (metric == "rss_peak_mb") return plain(cell.rss_peak_mb);
  const size_t last = metric.rfind('_'), split = last == std::string::npos ? last : metric.rfind('_', last - 1);
  if (split == std::string::npos) return {};
  const auto it = cell.latencies.find(metric.substr(0, split) + "_ms");
  if (it == cell.latencies.end()) return {};
  const std::string what = metric.substr(split + 1, last - split - 1);
  if (what == "mean") return it->second.mean;
  for (size_t i = 0; i < kPercentiles.size(); ++i) {
    if (what == "p" + std::to_string(kPercentiles[i])) return it->second.percentiles[i];
  }
  return {};
}

const std::vector<std::pair<std::string, std::string>>& MetricFormulas() {
  static const std::vector<std::pair<std::string, std::string>> formulas = [] {
    std::vector<std::pair<std::string, std::string>> f;
    for (const Metric& m : Metrics()) f.emplace_back(m.name, m.formula);
    f.emplace_back(kItl, kItlFormula);
    f.emplace_back("total_tokens_per_s",
                   "(prompt tokens, cached ones included, + output tokens) of successes / duration");
    f.emplace_back("duration", "first scheduled moment to last end, summed over blocks");
    f.emplace_back("goodput_per_s", "successes within every SLO / duration");
    f.emplace_back("error_rate", "failed / (failed + succeeded); planned cancels are neither; interval: Wilson");
    f.emplace_back("percentiles",
                   "linear between order statistics; interval: binomial ranks (itl: bootstrap over requests)");
    f.emplace_back("ratios", "mean log-ratio of interleaved blocks, Student's t");
    return f;
  }();
  return formulas;
}

}  // namespace sluice::loadtest
