#include "loadtest/report_content.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "loadtest/report_format.h"

namespace sluice::loadtest {
namespace {

std::string Count(int64_t n) { return std::to_string(n); }
std::string Percent(double share) { return Number(share * 100); }

Table Checks(const Summary& summary) {
  Table table{.title = "Checks", .header = {"verdict", "check", "value", "limit", "note"}, .align = "vlrrl"};
  for (const CheckResult& c : summary.checks) {
    table.rows.push_back({VerdictName(c.verdict), c.text, WithInterval(c.value), fmt::format("{:g}", c.limit), c.note});
  }
  return table;
}

Table Comparisons(const Summary& summary) {
  Table table{
      .title = "Comparisons",
      .note = "A winner is named where the 95 % interval of the ratio leaves out 1 and it differs by 3 % or more.",
      .header = {"metric", "arm", "against", "arm's", "against's", "ratio", "winner"},
      .align = "lllrrrl"};
  if (!summary.cells.empty() && summary.cells.back().level != summary.cells.front().level) {
    table.note += " At the first level, " + OfferedText(summary.cells.front()) + ".";
  }
  for (const Comparison& c : summary.comparisons) {
    const std::string winner = !c.ratio.known() ? "not measured" : c.winner.empty() ? "no difference shown" : c.winner;
    table.rows.push_back(
        {c.metric, c.arm, c.against, Number(c.value), Number(c.against_value), WithInterval(c.ratio), winner});
  }
  return table;
}

Table Requests(const Summary& summary) {
  const bool modes =
      std::any_of(summary.cells.begin(), summary.cells.end(), [](const Cell& c) { return c.failure_mode != "none"; });
  Table table{.title = "Requests",
              .header = {"offered", "arm", "blocks", "seconds", "requests", "ok", "failed", "cancelled", "error %"},
              .align = "llrrrrrrr"};
  if (modes) {
    table.header.push_back("failure mode");
    table.align += 'l';
  }
  for (const Cell& c : summary.cells) {
    table.rows.push_back({OfferedText(c), c.arm, Count(c.blocks), Number(c.duration_s), Count(c.requests),
                          Count(c.succeeded), Count(c.failed), Count(c.cancelled),
                          WithInterval(Scaled(c.error_rate, 100))});
    if (modes) table.rows.back().push_back(c.failure_mode);
  }
  return table;
}

Table Throughput(const Summary& summary) {
  Table table{.title = "Throughput and resources",
              .note = "Peak: requests in flight at once. CPU in % of one core. Client: the load generator itself.",
              .header = {"offered", "arm", "req/s", "out tok/s", "all tok/s", "goodput/s", "good %", "peak", "CPU %",
                         "RSS MB", "client %", "lag p99 ms"},
              .align = "llrrrrrrrrrr"};
  for (const Cell& c : summary.cells) {
    table.rows.push_back({OfferedText(c), c.arm, Number(c.requests_per_s), Number(c.output_tokens_per_s),
                          Number(c.total_tokens_per_s), Number(c.goodput_per_s), Percent(c.goodput_share),
                          Count(c.peak_concurrency), Number(c.cpu_percent), Number(c.rss_peak_mb),
                          Number(c.generator_cpu_percent), Number(c.lag_p99_ms)});
  }
  return table;
}

struct LatencyName {
  const char* metric;
  const char* label;
  bool detail;
};
constexpr LatencyName kLatencies[] = {
    {"ttft_ms", "TTFT", false},
    {"itl_ms", "ITL", false},
    {"tpot_ms", "TPOT", false},
    {"e2e_ms", "e2e", false},
    {"ttft_from_sent_ms", "TTFT from send", true},
    {"queue_ms", "server queue", true},
    {"client_queue_ms", "client queue", true},
    {"server_ttft_ms", "server TTFT", true},
};

// Everything of one level and metric stands together, so that arms can be compared line by line.
void AddLatencies(const std::vector<const Cell*>& cells, const LatencyName& name, bool detailed, Table& table) {
  for (const Cell* cell : cells) {
    const auto found = cell->latencies.find(name.metric);
    if (found == cell->latencies.end() || found->second.count == 0) continue;
    const Latency& latency = found->second;
    std::vector<std::string> row = {OfferedText(*cell), name.label, cell->arm, Count(latency.count),
                                    detailed ? WithInterval(latency.mean) : Number(latency.mean.value)};
    for (size_t i = 0; i < kPercentiles.size(); ++i) {
      if (detailed || kPercentiles[i] != 90) row.push_back(WithInterval(latency.percentiles[i]));
    }
    if (detailed) row.insert(row.end(), {Number(latency.stddev), Number(latency.min), Number(latency.max)});
    table.rows.push_back(std::move(row));
  }
}

Table Latencies(const Summary& summary, bool detailed) {
  Table table{.title = "Latency, ms", .header = {"offered", "metric", "arm", "n", "mean"}, .align = "lllrr"};
  for (const int p : kPercentiles) {
    if (!detailed && p == 90) continue;
    table.header.push_back(fmt::format("p{}", p));
    table.align += 'r';
  }
  if (detailed) {
    table.header.insert(table.header.end(), {"std dev", "min", "max"});
    table.align += "rrr";
  }
  for (size_t i = 0; i < summary.cells.size();) {
    std::vector<const Cell*> level;
    for (const int first = summary.cells[i].level; i < summary.cells.size() && summary.cells[i].level == first; ++i) {
      level.push_back(&summary.cells[i]);
    }
    for (const LatencyName& name : kLatencies) {
      if (detailed || !name.detail) AddLatencies(level, name, detailed, table);
    }
  }
  return table;
}

Table Classes(const Summary& summary) {
  Table table{.title = "By class",
              .note = "Good: within every SLO, of all requests of the class; refused ones are not.",
              .header = {"offered", "arm", "class", "requests", "ok", "failed", "good %", "ttft p50", "ttft p95"},
              .align = "lllrrrrrr"};
  for (const Cell& cell : summary.cells) {
    for (const auto& [name, c] : cell.classes) {
      table.rows.push_back({OfferedText(cell), cell.arm, name, Count(c.requests), Count(c.succeeded), Count(c.failed),
                            Percent(c.goodput_share), WithInterval(c.ttft_p50), WithInterval(c.ttft_p95)});
    }
  }
  return table;
}

Table Errors(const Summary& summary) {
  Table table{.title = "Errors", .header = {"offered", "arm", "code", "count", "example"}, .align = "lllrl"};
  for (const Cell& cell : summary.cells) {
    for (const auto& [code, count] : cell.errors) {
      const auto example = cell.error_examples.find(code);
      table.rows.push_back({OfferedText(cell), cell.arm, code, Count(count),
                            example == cell.error_examples.end() ? "–" : example->second});
    }
  }
  return table;
}

Table Pipelines(const Summary& summary) {
  Table table{.title = "Served by",
              .note = "The pipeline that the server named in its trailers.",
              .header = {"offered", "arm", "pipeline", "requests", "share %"},
              .align = "lllrr"};
  for (const Cell& cell : summary.cells) {
    int64_t total = 0;
    for (const auto& [pipeline, count] : cell.pipelines) total += count;
    for (const auto& [pipeline, count] : cell.pipelines) {
      table.rows.push_back({OfferedText(cell), cell.arm, pipeline.empty() ? "(not said)" : pipeline, Count(count),
                            Percent(static_cast<double>(count) / static_cast<double>(std::max<int64_t>(total, 1)))});
    }
  }
  return table;
}

}  // namespace

std::string OfferedText(const Cell& cell) {
  return fmt::format("{} {}", Number(cell.offered),
                     cell.open_loop      ? "req/s"
                     : cell.offered == 1 ? "stream"
                                         : "streams");
}

Headline HeadlineOf(const Summary& summary) {
  const auto count = [&](Verdict v) {
    return std::count_if(summary.checks.begin(), summary.checks.end(),
                         [&](const CheckResult& c) { return c.verdict == v; });
  };
  const auto missed = count(Verdict::kMissed), invalid = count(Verdict::kInvalid), beaten = count(Verdict::kBeaten);
  const size_t all = summary.checks.size();
  const std::string counts = fmt::format("{} checks: {} reached ({} of them beaten), {} missed, {} without a verdict",
                                         all, static_cast<long>(all) - missed - invalid, beaten, missed, invalid);
  if (!summary.invalid.empty())
    return {"INVALID", "This run must not be believed; its numbers are shown to find out why"};
  switch (summary.exit_code()) {
    case 2:
      return {"INVALID", all == 0 ? "The run is invalid" : counts};
    case 1:
      return {"MISSED", counts};
    default:
      break;
  }
  if (all == 0) return {"MEASURED", "No checks were asked for"};
  return {beaten == static_cast<long>(all) ? "BEATEN" : "REACHED", counts};
}

std::string Subtitle(const Summary& summary) {
  std::string text = fmt::format("{} ({}), seed {}", summary.scenario, summary.kind, summary.seed);
  if (summary.quick) text += ", quick";
  if (summary.partial) text += ", interrupted: " + (summary.ended.empty() ? "no end line" : summary.ended);
  return text;
}

size_t Repeated(const Table& table, size_t row) {
  size_t same = 0;
  while (row > 0 && same < table.align.size() && table.align[same] == 'l' &&
         table.rows[row][same] == table.rows[row - 1][same]) {
    ++same;
  }
  return same;
}

std::vector<Table> VerdictTables(const Summary& summary) {
  std::vector<Table> tables = {Checks(summary), Comparisons(summary)};
  std::erase_if(tables, [](const Table& table) { return table.rows.empty(); });
  return tables;
}

std::vector<Table> MeasurementTables(const Summary& summary, bool detailed) {
  std::vector<Table> tables = {Requests(summary), Throughput(summary), Latencies(summary, detailed),
                               Classes(summary),  Errors(summary),     Pipelines(summary)};
  std::erase_if(tables, [](const Table& table) { return table.rows.empty(); });
  return tables;
}

Table EnvironmentTable(const Summary& summary) {
  Table table{.title = "Environment", .header = {"key", "value"}, .align = "ll"};
  for (const auto& [key, value] : summary.environment) table.rows.push_back({key, value});
  return table;
}

Table FormulaTable() {
  Table table{.title = "Formulas", .header = {"metric", "formula"}, .align = "ll"};
  for (const auto& [metric, formula] : MetricFormulas()) table.rows.push_back({metric, formula});
  return table;
}

}  // namespace sluice::loadtest
