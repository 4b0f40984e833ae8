#include "loadtest/report_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "loadtest/report_content.h"
#include "loadtest/report_format.h"

namespace sluice::loadtest {
namespace {

constexpr size_t kMostLevels = 12;    // small multiples: a plot a level
constexpr size_t kMostSeconds = 300;  // points of a timeline; longer runs are thinned out
constexpr double kLogSpan = 50;       // a range this wide is shown on a logarithmic axis

std::vector<int> LevelsOf(const Summary& summary) {
  std::vector<int> levels;
  for (const Cell& cell : summary.cells) {
    if (std::find(levels.begin(), levels.end(), cell.level) == levels.end()) levels.push_back(cell.level);
  }
  return levels;
}

std::vector<const Cell*> CellsOf(const Summary& summary, const std::string& arm) {
  std::vector<const Cell*> cells;
  for (const Cell& cell : summary.cells) {
    if (cell.arm == arm) cells.push_back(&cell);
  }
  return cells;
}

void Keep(PlotSpec spec, PlotGroup& group) {
  if (HasData(spec)) group.plots.push_back(std::move(spec));
}

// Do the values (y or x) span so much that the small ones would vanish?
bool Wide(const PlotSpec& spec, double Point::*value) {
  double low = INFINITY, high = 0;
  for (const Series& series : spec.series) {
    for (const Point& p : series.points) {
      if (!std::isfinite(p.*value) || p.*value <= 0) continue;
      low = std::min(low, p.*value);
      high = std::max(high, p.*value);
    }
  }
  return high / low > kLogSpan;
}

std::string XLabel(const Summary& summary) {
  const bool open = !summary.cells.empty() && summary.cells.front().open_loop;
  return open ? "offered load, requests/s" : "offered load, streams";
}

Estimate PercentileOf(const Cell& cell, const std::string& metric, size_t percentile) {
  const auto found = cell.latencies.find(metric);
  return found == cell.latencies.end() ? Estimate{} : found->second.percentiles[percentile];
}

Series LatencySeries(const Summary& summary, const std::string& arm, const std::string& metric, size_t percentile) {
  Series series{.name = arm};
  for (const Cell* cell : CellsOf(summary, arm)) {
    const Estimate e = PercentileOf(*cell, metric, percentile);
    series.points.push_back(
        {cell->offered, e.value, e.low, e.high,
         fmt::format("{}, {}: p{} {} ms", arm, OfferedText(*cell), kPercentiles[percentile], WithInterval(e))});
  }
  return series;
}

// One arm: its percentiles in one plot. Several: a plot a percentile, so that lines of one plot can be compared.
PlotGroup LatencyAgainstLoad(const Summary& summary) {
  PlotGroup group{.title = "Latency against load",
                  .note = "Bands: 95 % intervals. Arrows: too few samples for that end."};
  for (const auto& [metric, label] : {std::pair("ttft_ms", "TTFT"), std::pair("e2e_ms", "e2e latency")}) {
    const bool one = summary.arms.size() == 1;
    PlotSpec all{.title = label, .x_label = XLabel(summary), .y_label = "ms"};
    for (const size_t p : {0u, 2u, 3u}) {
      PlotSpec spec{.title = fmt::format("{} p{}", label, kPercentiles[p]), .x_label = all.x_label, .y_label = "ms"};
      for (size_t arm = 0; arm < summary.arms.size(); ++arm) {
        Series series = LatencySeries(summary, summary.arms[arm], metric, p);
        series.color = series.dash = static_cast<int>(one ? all.series.size() : arm);
        if (one) series.name = fmt::format("p{}", kPercentiles[p]);
        (one ? all : spec).series.push_back(std::move(series));
      }
      spec.log_y = Wide(spec, &Point::y);
      if (!one) Keep(std::move(spec), group);
    }
    all.log_y = Wide(all, &Point::y);
    if (one) Keep(std::move(all), group);
  }
  return group;
}

PlotSpec RatePlot(const Summary& summary) {
  PlotSpec spec{.title = "Throughput and goodput", .x_label = XLabel(summary), .y_label = "requests/s"};
  spec.diagonal = !summary.cells.empty() && summary.cells.front().open_loop;
  for (size_t arm = 0; arm < summary.arms.size(); ++arm) {
    Series throughput{.name = summary.arms[arm], .color = static_cast<int>(arm), .dash = static_cast<int>(arm)};
    Series good = throughput;
    good.name += ", within SLO";
    good.dash += 2;
    for (const Cell* c : CellsOf(summary, summary.arms[arm])) {
      const std::string where = fmt::format("{}, {}: ", c->arm, OfferedText(*c));
      throughput.points.push_back(
          {.x = c->offered, .y = c->requests_per_s, .tooltip = where + Number(c->requests_per_s) + " requests/s"});
      good.points.push_back(
          {.x = c->offered, .y = c->goodput_per_s, .tooltip = where + Number(c->goodput_per_s) + " good requests/s"});
    }
    const bool has_goodput = HasData({.series = {good}});
    spec.series.push_back(std::move(throughput));
    if (has_goodput) spec.series.push_back(std::move(good));
  }
  return spec;
}

// Throughput against latency, in the order of the levels: where the curve turns up is the knee.
PlotSpec KneePlot(const Summary& summary, const std::string& metric, const std::string& label) {
  PlotSpec spec{.title = "Throughput against " + label, .x_label = "output tokens/s", .y_label = label + ", ms"};
  for (size_t arm = 0; arm < summary.arms.size(); ++arm) {
    const int i = static_cast<int>(arm);
    Series series{.name = summary.arms[arm], .color = i, .dash = i};
    for (const Cell* c : CellsOf(summary, summary.arms[arm])) {
      const Estimate e = PercentileOf(*c, metric, 2);
      series.points.push_back({.x = c->output_tokens_per_s,
                               .y = e.value,
                               .tooltip = fmt::format("{}, {}: {} tokens/s, {} {} ms", c->arm, OfferedText(*c),
                                                      Number(c->output_tokens_per_s), label, Number(e.value))});
    }
    spec.series.push_back(std::move(series));
  }
  spec.log_y = Wide(spec, &Point::y);
  return spec;
}

PlotGroup Throughputs(const Summary& summary) {
  PlotGroup group{.title = "Throughput against load and latency",
                  .note = "Dotted line: all that was offered. A knee: latency grows while throughput no longer does."};
  Keep(RatePlot(summary), group);
  Keep(KneePlot(summary, "ttft_ms", "TTFT p95"), group);
  Keep(KneePlot(summary, "e2e_ms", "e2e p95"), group);
  return group;
}

// `make` for each of the first levels.
PlotGroup PerLevel(const Summary& summary, PlotGroup group, const std::function<PlotSpec(int level)>& make) {
  const std::vector<int> levels = LevelsOf(summary);
  for (size_t i = 0; i < std::min(levels.size(), kMostLevels); ++i) Keep(make(levels[i]), group);
  if (levels.size() > kMostLevels) group.note += fmt::format(" The first {} of {} levels.", kMostLevels, levels.size());
  return group;
}

std::vector<const Cell*> CellsAt(const Summary& summary, int level) {
  std::vector<const Cell*> cells;
  for (const Cell& cell : summary.cells) {
    if (cell.level == level) cells.push_back(&cell);
  }
  return cells;
}

int IndexOf(const Summary& summary, const std::string& arm) {
  return static_cast<int>(std::find(summary.arms.begin(), summary.arms.end(), arm) - summary.arms.begin());
}

std::string LevelTitle(const Summary& summary, int level) { return OfferedText(*CellsAt(summary, level).front()); }

PlotGroup Ecdfs(const Summary& summary) {
  PlotGroup group{.title = "Distribution of TTFT", .note = "Share of requests that had their first token by then."};
  return PerLevel(summary, std::move(group), [&](int level) {
    PlotSpec spec{.title = "TTFT at " + LevelTitle(summary, level), .x_label = "TTFT, ms", .y_label = "% of requests"};
    spec.y_max = 100;
    for (const Cell* cell : CellsAt(summary, level)) {
      const int i = IndexOf(summary, cell->arm);
      Series series{.name = cell->arm, .color = i, .dash = i, .markers = false, .step = true};
      for (const auto& [ms, share] : cell->ttft_ecdf) {
        series.points.push_back(
            {.x = ms,
             .y = share * 100,
             .tooltip = fmt::format("{}: {} % within {} ms", cell->arm, Number(share * 100), Number(ms))});
      }
      spec.series.push_back(std::move(series));
    }
    spec.log_x = Wide(spec, &Point::x);
    return spec;
  });
}

// The scalar whose blocks are shown: the first that is compared, else the tail of TTFT, else what there is.
std::string MainMetric(const Summary& summary) {
  std::vector<std::string> wishes;
  for (const Comparison& c : summary.comparisons) wishes.push_back(c.metric);
  wishes.insert(wishes.end(), {"ttft_p95_ms", "ttft_p50_ms", "e2e_p95_ms", "output_tokens_per_s", "requests_per_s"});
  for (const std::string& wish : wishes) {
    for (const Cell& cell : summary.cells) {
      if (cell.per_block.contains(wish)) return wish;
    }
  }
  for (const Cell& cell : summary.cells) {
    if (!cell.per_block.empty()) return cell.per_block.begin()->first;
  }
  return "";
}

void AddBlocks(const Cell& cell, const std::string& metric, int index, PlotSpec& spec) {
  const auto found = cell.per_block.find(metric);
  if (found == cell.per_block.end() || found->second.size() < 2) return;
  Series dots{.name = cell.arm, .color = index, .line = false};
  double sum = 0, known = 0;
  for (size_t i = 0; i < found->second.size(); ++i) {
    const double value = found->second[i];
    dots.points.push_back({.x = static_cast<double>(i + 1),
                           .y = value,
                           .tooltip = fmt::format("{}, block {}: {}", cell.arm, i + 1, Number(value))});
    if (!std::isfinite(value)) continue;
    sum += value;
    ++known;
  }
  Series mean{.color = index, .dash = 1, .markers = false};
  const double last = static_cast<double>(found->second.size());
  for (const double x : {1.0, last}) mean.points.push_back({.x = x, .y = sum / known});
  spec.series.push_back(std::move(dots));
  spec.series.push_back(std::move(mean));
}

PlotGroup Blocks(const Summary& summary) {
  const std::string metric = MainMetric(summary);
  PlotGroup group{.title = "Noise: " + metric + " block by block",
                  .note =
                      "The arms ran in turn; dots joined by a line are neighbours in time. Dashed: mean of the "
                      "blocks. A difference smaller than the scatter is none."};
  return PerLevel(summary, std::move(group), [&](int level) {
    PlotSpec spec{.title = "At " + LevelTitle(summary, level), .x_label = "block", .y_label = metric};
    spec.join = spec.whole_x = true;
    for (const Cell* cell : CellsAt(summary, level)) {
      AddBlocks(*cell, metric, IndexOf(summary, cell->arm), spec);
    }
    return spec;
  });
}

// A value of a second, and how several seconds become one point.
struct TimeLine {
  const char* title;
  const char* unit;
  std::function<double(const Second&)> value;
  bool peak = false;  // the highest, else the mean
  const char* suffix = "";
  int dash = 0;
};

// One point every `step` seconds; a gap where no second was recorded.
Series TimeSeries(const std::string& arm, const std::vector<Second>& seconds, const TimeLine& line, double step) {
  Series series{.name = arm + line.suffix, .dash = line.dash, .markers = false};
  for (size_t i = 0; i < seconds.size();) {
    const double start = std::floor(seconds[i].at_s / step) * step, from = seconds[i].at_s;
    double sum = 0, high = -INFINITY, known = 0;
    for (; i < seconds.size() && seconds[i].at_s < start + step; ++i) {
      const double value = line.value(seconds[i]);
      if (!std::isfinite(value)) continue;
      sum += value;
      high = std::max(high, value);
      ++known;
    }
    const double value = known == 0 ? kNan : line.peak ? high : sum / known;
    if (!series.points.empty() && from - series.points.back().x > 2.5 * step) {
      series.points.push_back({.x = from - step});
    }
    series.points.push_back({.x = from,
                             .y = value,
                             .tooltip = fmt::format("{} at {} s: {} {}", arm, Number(from), Number(value), line.unit)});
  }
  return series;
}

std::vector<Shade> Faults(const Summary& summary) {
  std::vector<Shade> shades;
  for (const FaultEvent& f : summary.faults) {
    shades.push_back({static_cast<double>(f.start_ns) / 1e9, static_cast<double>(f.end_ns) / 1e9,
                      fmt::format("fault: {} of {}", f.action, f.arm)});
  }
  return shades;
}

PlotGroup Timeline(const Summary& summary) {
  size_t longest = 0;
  for (const auto& [arm, seconds] : summary.timeline) longest = std::max(longest, seconds.size());
  const auto step = static_cast<double>(std::max<size_t>(1, (longest + kMostSeconds - 1) / kMostSeconds));
  PlotGroup group{.title = "Timeline", .note = "Gaps: nothing was measured."};
  if (step > 1) group.note += fmt::format(" A point stands for {} s: mean rates, highest of the rest.", step);
  const auto number = [](int64_t Second::*field) {
    return [field](const Second& s) { return static_cast<double>(s.*field); };
  };
  const std::vector<std::vector<TimeLine>> panels = {
      {{"Rate", "requests/s", number(&Second::completed), false, ", completed"},
       {"Rate", "requests/s", number(&Second::started), false, ", started", 2},
       {"Rate", "requests/s", number(&Second::failed), false, ", failed", 1}},
      {{"In flight", "requests", number(&Second::in_flight), true}},
      {{"Output", "tokens/s", number(&Second::output_tokens)}},
      {{"TTFT p95", "ms", [](const Second& s) { return s.ttft_p95_ms; }, true}},
      {{"CPU", "% of one core", [](const Second& s) { return s.cpu_percent; }}},
      {{"RSS", "MB", [](const Second& s) { return s.rss_mb; }, true}},
  };
  for (const std::vector<TimeLine>& lines : panels) {
    PlotSpec spec{.title = lines.front().title,
                  .x_label = "seconds of the run",
                  .y_label = lines.front().unit,
                  .shades = Faults(summary),
                  .width = 1160,
                  .height = 190};
    for (const TimeLine& line : lines) {
      for (size_t i = 0; i < summary.arms.size(); ++i) {
        const auto found = summary.timeline.find(summary.arms[i]);
        if (found == summary.timeline.end()) continue;
        Series series = TimeSeries(summary.arms[i], found->second, line, step);
        series.color = static_cast<int>(i);
        const bool zero =
            std::all_of(series.points.begin(), series.points.end(), [](const Point& p) { return !(p.y > 0); });
        if (line.suffix != std::string(", failed") || !zero) spec.series.push_back(std::move(series));
      }
    }
    spec.log_y = lines.front().title == std::string("TTFT p95") && Wide(spec, &Point::y);
    Keep(std::move(spec), group);
  }
  return group;
}

}  // namespace

std::vector<PlotGroup> PlotsOf(const Summary& summary) {
  std::vector<PlotGroup> groups;
  if (LevelsOf(summary).size() > 1) groups = {LatencyAgainstLoad(summary), Throughputs(summary)};
  groups.push_back(Ecdfs(summary));
  groups.push_back(Blocks(summary));
  groups.push_back(Timeline(summary));
  std::erase_if(groups, [](const PlotGroup& group) { return group.plots.empty(); });
  return groups;
}

}  // namespace sluice::loadtest
