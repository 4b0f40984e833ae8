#include "loadtest/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "loadtest/report_format.h"

namespace sluice::loadtest {
namespace {

constexpr int kLeft = 54, kRight = 16, kTop = 26, kBottom = 42, kLegendRow = 18, kFont = 11;
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
constexpr const char* kDashes[] = {"", "7 4", "2 3", "9 3 2 3", "5 2", "1 4"};
constexpr int kPalette = 6;
constexpr double kLargest = 1e12;  // what is beyond is no measurement, and would break the arithmetic

struct Axis {
  double low = 0, high = 1;
  double from = 0, to = 1;  // pixels
  bool log = false;
  std::vector<double> ticks;

  double At(double value) const {
    const double v = std::clamp(value, low, high);
    const double share = log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
    return from + share * (to - from);
  }
};

struct Frame {
  Axis x, y;
};

bool Usable(double value, bool log) { return std::abs(value) <= kLargest && (!log || value >= 1 / kLargest); }
bool Usable(const Point& p, const PlotSpec& spec) { return Usable(p.x, spec.log_x) && Usable(p.y, spec.log_y); }

std::string TickText(double value) {
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  return fmt::format("{:.4g}", value);
}

void SetRange(double low, double high, int count, Axis& axis) {
  if (axis.log) {
    axis.low = low * 0.93;
    axis.high = std::max(high * 1.07, low * 2);
    axis.ticks = LogTicks(axis.low, axis.high);
    return;
  }
  axis.low = std::min(low, 0.0);
  axis.high = high > axis.low ? high : axis.low + 1;
  axis.ticks = NiceTicks(axis.low, axis.high, count);
  axis.low = std::min(axis.low, axis.ticks.front());
  axis.high = axis.ticks.back();
}

Axis XAxis(const PlotSpec& spec) {
  Axis axis{.from = kLeft, .to = static_cast<double>(spec.width - kRight), .log = spec.log_x};
  double low = INFINITY, high = -INFINITY;
  for (const Series& series : spec.series) {
    for (const Point& p : series.points) {
      if (!Usable(p.x, spec.log_x)) continue;
      low = std::min(low, p.x);
      high = std::max(high, p.x);
    }
  }
  SetRange(low, high, spec.width / 50, axis);
  if (spec.whole_x) {
    axis.low = std::floor(low) - 0.5;
    axis.high = std::ceil(high) + 0.5;
    std::erase_if(axis.ticks, [&](double t) { return t != std::floor(t) || t < axis.low || t > axis.high; });
  } else if (!axis.log) {
    // Ticks beyond the data would only waste room.
    axis.high = std::min(axis.high, high > 0 ? high * 1.03 : axis.high);
    std::erase_if(axis.ticks, [&](double t) { return t > axis.high; });
  }
  return axis;
}

Axis YAxis(const PlotSpec& spec) {
  Axis axis{.from = static_cast<double>(spec.height - kBottom), .to = kTop, .log = spec.log_y};
  double low = INFINITY, high = -INFINITY, ends = -INFINITY;
  for (const Series& series : spec.series) {
    for (const Point& p : series.points) {
      if (!Usable(p, spec)) continue;
      low = std::min(low, p.y);
      high = std::max(high, p.y);
      if (std::isfinite(p.high)) ends = std::max(ends, p.high);
    }
  }
  high = std::max(high, std::min(ends, 1.5 * high));  // one wild interval must not flatten everything else
  SetRange(low, std::isfinite(spec.y_max) ? spec.y_max : high, 5, axis);
  return axis;
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text, const std::string& more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     XmlText(text));
}

std::string AxesSvg(const PlotSpec& spec, const Frame& f) {
  std::string out = "<g fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".15\">\n";
  for (const double t : f.y.ticks) {
    out += fmt::format("<path d=\"M{} {:.1f}H{}\"/>\n", f.x.from, f.y.At(t), f.x.to);
  }
  for (const double t : f.x.ticks) {
    out += fmt::format("<path d=\"M{:.1f} {}v4\" stroke-opacity=\".6\"/>\n", f.x.At(t), f.y.from);
  }
  out += fmt::format("<path d=\"M{} {}H{}\" stroke-opacity=\".6\"/>\n</g>\n<g fill=\"currentColor\">\n", f.x.from,
                     f.y.from, f.x.to);
  for (const double t : f.y.ticks) out += Text(f.x.from - 6, f.y.At(t) + 4, "end", TickText(t));
  double last = -INFINITY;  // labels that would touch are left out
  for (const double t : f.x.ticks) {
    const double x = f.x.At(t), half = 3.2 * static_cast<double>(TickText(t).size());
    if (x - half < last) continue;
    out += Text(x, f.y.from + 16, "middle", TickText(t));
    last = x + half + 6;
  }
  out += Text((f.x.from + f.x.to) / 2, f.y.from + 34, "middle", spec.x_label + (spec.log_x ? " (log)" : ""));
  out += Text(0, 0, "middle", spec.y_label + (spec.log_y ? " (log)" : ""),
              fmt::format(" transform=\"translate(12 {:.1f}) rotate(-90)\"", (f.y.from + f.y.to) / 2));
  return out + "</g>\n";
}

std::string ShadesSvg(const PlotSpec& spec, const Frame& f) {
  std::string out;
  for (const Shade& shade : spec.shades) {
    const double left = f.x.At(shade.from), right = std::max(f.x.At(shade.to), left + 2);
    if (shade.to < f.x.low || shade.from > f.x.high) continue;
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"currentColor\" fill-opacity=\".13\">"
        "<title>{}</title></rect>\n",
        left, f.y.to, right - left, f.y.from - f.y.to, XmlText(shade.name));
  }
  return out;
}

std::string MarkerSvg(int shape, double x, double y, const std::string& tooltip) {
  constexpr const char* kShapes[] = {
      "M{0:.1f} {1:.1f}m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
      "M{0:.1f} {1:.1f}m-3.2 -3.2h6.4v6.4h-6.4z",
      "M{0:.1f} {1:.1f}m0 -4.4l4.2 7.4h-8.4z",
      "M{0:.1f} {1:.1f}m0 -4.6l4.6 4.6l-4.6 4.6l-4.6 -4.6z",
      "M{0:.1f} {1:.1f}m0 4.4l4.2 -7.4h-8.4z",
      "M{0:.1f} {1:.1f}m-4 -1.4h2.6v-2.6h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6z",
  };
  const std::string title = tooltip.empty() ? "" : "<title>" + XmlText(tooltip) + "</title>";
  return fmt::format("<path d=\"{}\" fill=\"currentColor\">{}</path>\n",
                     fmt::format(fmt::runtime(kShapes[shape % kPalette]), x, y), title);
}

// Runs of points without a gap between them.
std::vector<std::vector<const Point*>> Runs(const Series& series, const PlotSpec& spec, bool with_interval) {
  std::vector<std::vector<const Point*>> runs(1);
  for (const Point& p : series.points) {
    const bool interval = p.low == p.low && p.high == p.high;
    if (Usable(p, spec) && (interval || !with_interval)) {
      runs.back().push_back(&p);
    } else if (!runs.back().empty()) {
      runs.emplace_back();
    }
  }
  if (runs.back().empty()) runs.pop_back();
  return runs;
}

// An arrow that starts at the point: this end of the interval is open.
std::string OpenEndSvg(const Point& p, const Frame& f, int up) {
  return fmt::format(
      "<path d=\"M{:.1f} {:.1f}v{}m-3 {}l3 {}l3 {}\" fill=\"none\" stroke=\"currentColor\" "
      "stroke-opacity=\".6\"/>\n",
      f.x.At(p.x), f.y.At(p.y), -16 * up, 4 * up, -4 * up, 4 * up);
}

std::string BandSvg(const Series& series, const PlotSpec& spec, const Frame& f) {
  std::string out;
  for (const auto& run : Runs(series, spec, /*with_interval=*/true)) {
    std::string upper, lower;
    for (const Point* p : run) {
      const double low = std::isinf(p->low) ? p->y : p->low, high = std::isinf(p->high) ? p->y : p->high;
      upper += fmt::format("{}{:.1f} {:.1f}", upper.empty() ? 'M' : 'L', f.x.At(p->x), f.y.At(high));
      lower = fmt::format("L{:.1f} {:.1f}", f.x.At(p->x), f.y.At(low)) + lower;
      if (std::isinf(p->high)) out += OpenEndSvg(*p, f, 1);
      if (std::isinf(p->low)) out += OpenEndSvg(*p, f, -1);
    }
    const char* style = run.size() > 1 ? "fill=\"currentColor\" fill-opacity=\".18\""
                                       : "stroke=\"currentColor\" stroke-opacity=\".5\"";  // one point: a whisker
    out += fmt::format("<path d=\"{}{}z\" {}/>\n", upper, lower, style);
  }
  return out;
}

std::string SeriesSvg(const Series& series, const PlotSpec& spec, const Frame& f) {
  std::string out = BandSvg(series, spec, f);
  for (const auto& run : Runs(series, spec, /*with_interval=*/false)) {
    std::string path;
    for (const Point* p : run) {
      const double x = f.x.At(p->x), y = f.y.At(p->y);
      if (path.empty()) {
        path = fmt::format("M{:.1f} {:.1f}", x, y);
      } else {
        path += series.step ? fmt::format("H{:.1f}V{:.1f}", x, y) : fmt::format("L{:.1f} {:.1f}", x, y);
      }
    }
    if (run.size() == 1 && !series.markers) path += "h2";  // a lone second must still be seen
    if (series.line) {
      out += fmt::format(
          "<path d=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.8\" "
          "stroke-linejoin=\"round\" stroke-dasharray=\"{}\"/>\n",
          path, kDashes[series.dash % kPalette]);
    }
    for (const Point* p : run) {
      if (series.markers) {
        out += MarkerSvg(series.color, f.x.At(p->x), f.y.At(p->y), p->tooltip);
      } else if (!p->tooltip.empty()) {  // nothing to see, something to point at
        out +=
            fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\" fill-opacity=\"0\"><title>{}</title></circle>\n",
                        f.x.At(p->x), f.y.At(p->y), XmlText(p->tooltip));
      }
    }
  }
  return out;
}

std::string Colored(const Series& series, const std::string& content) {
  const int c = series.color % kPalette;
  return fmt::format("<g style=\"color:var(--c{},{})\">\n{}</g>\n", c, kColors[c], content);
}

std::string JoinsSvg(const PlotSpec& spec, const Frame& f) {
  std::map<double, std::pair<double, double>> ends;  // x → lowest and highest dot
  for (const Series& series : spec.series) {
    for (const Point& p : series.points) {
      if (!series.markers || !Usable(p, spec)) continue;
      const auto [at, fresh] = ends.try_emplace(p.x, p.y, p.y);
      if (!fresh) at->second = {std::min(at->second.first, p.y), std::max(at->second.second, p.y)};
    }
  }
  std::string out;
  for (const auto& [x, y] : ends) {
    out += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}\" stroke=\"currentColor\" stroke-opacity=\".45\"/>\n",
                       f.x.At(x), f.y.At(y.first), f.y.At(y.second));
  }
  return out;
}

struct Legend {
  std::string svg;
  int height = 0;
};

// Under the title and above the data, in as many rows as it needs.
Legend LegendOf(const PlotSpec& spec) {
  Legend legend;
  double x = kLeft, y = kTop + 4;
  const auto place = [&](const std::string& name) {
    const double width = 36 + 6.3 * static_cast<double>(Columns(name)) + 12;
    if (x > kLeft && x + width > spec.width) {
      x = kLeft;
      y += kLegendRow;
    }
    const double at = x;
    x += width;
    legend.height = static_cast<int>(y) - kTop - 4 + kLegendRow + 4;
    return at;
  };
  for (const Series& series : spec.series) {
    if (series.name.empty()) continue;
    const std::string name = Shortened(Printable(series.name), 36);
    const double at = place(name);
    std::string swatch;
    if (series.line) {
      swatch = fmt::format(
          "<path d=\"M{:.1f} {:.1f}h30\" stroke=\"currentColor\" stroke-width=\"1.8\" "
          "stroke-dasharray=\"{}\"/>\n",
          at, y, kDashes[series.dash % kPalette]);
    }
    if (series.markers) swatch += MarkerSvg(series.color, at + 15, y, "");
    legend.svg += Colored(series, swatch) + Text(at + 36, y + 4, "start", name, " fill=\"currentColor\"");
  }
  std::vector<std::string> seen;
  for (const Shade& shade : spec.shades) {
    const std::string name = Shortened(Printable(shade.name), 36);
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) continue;
    seen.push_back(name);
    const double at = place(name);
    legend.svg += fmt::format(
                      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"30\" height=\"10\" fill=\"currentColor\" "
                      "fill-opacity=\".13\"/>\n",
                      at, y - 5) +
                  Text(at + 36, y + 4, "start", name, " fill=\"currentColor\"");
  }
  return legend;
}

}  // namespace

std::vector<double> NiceTicks(double low, double high, int count) {
  const double raw = (high - low) / count, power = std::pow(10, std::floor(std::log10(raw)));
  const double lead = raw / power;
  const double step = power * (lead <= 1.0001 ? 1 : lead <= 2.0001 ? 2 : lead <= 5.0001 ? 5 : 10);
  std::vector<double> ticks;
  const auto first = static_cast<int64_t>(std::floor(low / step + 1e-9));
  const auto last = static_cast<int64_t>(std::ceil(high / step - 1e-9));
  for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::vector<double> LogTicks(double low, double high) {
  std::vector<double> ticks;
  const bool powers_only = high / low > 1000;
  const int stride = 1 + static_cast<int>(std::log10(high / low)) / 8;
  for (int e = static_cast<int>(std::floor(std::log10(low))); std::pow(10, e) <= high; e += stride) {
    for (const double lead : {1.0, 2.0, 5.0}) {
      const double tick = lead * std::pow(10, e);
      if (tick >= low && tick <= high && (lead == 1 || !powers_only)) ticks.push_back(tick);
    }
  }
  return ticks;
}

bool HasData(const PlotSpec& spec) {
  return std::any_of(spec.series.begin(), spec.series.end(), [&](const Series& series) {
    return std::any_of(series.points.begin(), series.points.end(), [&](const Point& p) { return Usable(p, spec); });
  });
}

std::string SvgPlot(const PlotSpec& spec) {
  if (!HasData(spec)) return "";
  const Frame frame{XAxis(spec), YAxis(spec)};
  const Legend legend = LegendOf(spec);
  std::string data = ShadesSvg(spec, frame) + AxesSvg(spec, frame);
  if (spec.diagonal) {
    const double end = std::min(frame.x.high, frame.y.high);
    data += fmt::format(
        "<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"currentColor\" stroke-opacity=\".5\" "
        "stroke-dasharray=\"1 3\"><title>all that was offered</title></path>\n",
        frame.x.At(0), frame.y.At(0), frame.x.At(end), frame.y.At(end));
  }
  if (spec.join) data += JoinsSvg(spec, frame);
  for (const Series& series : spec.series) data += Colored(series, SeriesSvg(series, spec, frame));
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" style=\"width:100%;max-width:{0}px\" "
      "role=\"img\" "
      "aria-label=\"{2}\" font-family=\"system-ui,sans-serif\" font-size=\"{3}\">\n{4}{5}<g transform=\"translate(0 "
      "{6})\">\n"
      "{7}</g>\n</svg>\n",
      spec.width, spec.height + legend.height, XmlText(spec.title), kFont,
      Text(4, 14, "start", spec.title, " fill=\"currentColor\" font-weight=\"600\" font-size=\"13\""), legend.svg,
      legend.height, data);
}

}  // namespace sluice::loadtest
