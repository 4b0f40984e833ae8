#include "services/cli/evidence_page.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <string_view>

#include "fmt/chrono.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::cli {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 5> kColors = {"#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98"};
constexpr double kWidth = 860, kHeight = 220, kLeft = 60, kBottom = 26, kTop = 10;

std::string Text(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

double Number(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_number() ? it->get<double>() : NAN;
}

std::string Show(double value) { return std::isnan(value) ? "-" : fmt::format("{:.4g}", value); }

std::string Time(double ms) {
  if (std::isnan(ms)) return "-";
  const auto seconds = static_cast<std::time_t>(ms / 1000);
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(seconds));
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  }
  return out;
}

const json& Array(const json& object, const char* name) {
  static const json kNone = json::array();
  const auto it = object.find(name);
  return it != object.end() && it->is_array() ? *it : kNone;
}

struct Axis {
  double low, high;
  bool log;
  double At(double value) const {
    const double v = log ? std::log10(std::max(value, low)) : value;
    const double a = log ? std::log10(low) : low, b = log ? std::log10(high) : high;
    return kTop + (kHeight - kTop - kBottom) * (1 - std::clamp((v - a) / (b - a), 0.0, 1.0));
  }
};

// One line a check over the series' time; `limit`: a dashed line.
std::string Plot(const json& series, const char* values, std::string_view title, Axis axis, double limit) {
  const json &points = Array(series, "points"), &names = Array(series, "checks");
  if (points.size() < 2) return "";
  const double first = Number(points.front(), "when_ms"), last = Number(points.back(), "when_ms");
  const auto x = [&](double ms) { return kLeft + (kWidth - kLeft - 10) * (ms - first) / std::max(1.0, last - first); };
  std::string svg = fmt::format("<h3>{}</h3><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", title, kWidth,
                                kHeight, title);
  for (int i = 0; i <= 4; ++i) {
    const double part = i / 4.0;
    const double value =
        axis.log ? axis.low * std::pow(axis.high / axis.low, part) : axis.low + (axis.high - axis.low) * part;
    svg +=
        fmt::format("<line class=g x1={} x2={} y1={:.1f} y2={:.1f} /><text x={} y={:.1f} text-anchor=end>{:.3g}</text>",
                    kLeft, kWidth - 10, axis.At(value), axis.At(value), kLeft - 6, axis.At(value) + 4, value);
  }
  if (limit > 0) {
    svg += fmt::format("<line class=l x1={} x2={} y1={:.1f} y2={:.1f} />", kLeft, kWidth - 10, axis.At(limit),
                       axis.At(limit));
  }
  for (size_t check = 0; check < names.size() && check < kColors.size(); ++check) {
    std::string path;
    for (const json& point : points) {
      const json& list = Array(point, values);
      if (check >= list.size() || !list[check].is_number() || list[check].get<double>() <= 0) continue;
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x(Number(point, "when_ms")),
                          axis.At(list[check].get<double>()));
    }
    svg += fmt::format("<path d=\"{}\" stroke=\"{}\"/>", path, kColors[check]);
  }
  svg += fmt::format("<text x={} y={}>{}</text><text x={} y={} text-anchor=end>{}</text></svg>", kLeft, kHeight - 6,
                     Time(first), kWidth - 10, kHeight - 6, Time(last));
  std::string legend = "<p class=k>";
  for (size_t check = 0; check < names.size() && check < kColors.size(); ++check) {
    legend += fmt::format("<span style=\"color:{}\">&#9632;</span> {} &nbsp; ", kColors[check],
                          Escaped(names[check].is_string() ? names[check].get<std::string>() : ""));
  }
  return svg + legend + (limit > 0 ? "<span>- - limit</span></p>" : "</p>");
}

std::string Interval(const json& check) {
  const double low = Number(check, "low"), high = Number(check, "high");
  return low == 0 && high == 0 ? "-" : fmt::format("{} to {}", Show(low), Show(high));
}

std::string Table(const json& evidence) {
  std::string out =
      "<table><tr><th>check<th>verdict<th>canary<th>baseline<th>ratio<th>95 %<th>e-value<th>fails at<th>evidence for "
      "passing<th>passes at<th>samples</tr>";
  for (const json& check : Array(evidence, "checks")) {
    const std::string verdict = Text(check, "verdict");
    out += fmt::format(
        "<tr><td>{}<td class={}>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        Escaped(Text(check, "name")), verdict, verdict, Show(Number(check, "canary")), Show(Number(check, "baseline")),
        Show(Number(check, "ratio")), Interval(check), Show(Number(check, "e_value")), Show(Number(check, "e_limit")),
        Show(Number(check, "pass_e_value")), Show(Number(check, "pass_limit")), Show(Number(check, "samples")));
  }
  return out + "</table>";
}

constexpr std::string_view kStyle = R"(<style>
body{font:15px/1.45 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#1b2631;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{padding:3px 8px;border-bottom:1px solid #d5d8dc;text-align:right}
td:first-child,th:first-child{text-align:left}.fail{color:#c0392b;font-weight:600}.pass{color:#1e8449}
svg{width:100%;height:auto}svg text{font-size:11px;fill:#566573}svg path{fill:none;stroke-width:1.8}.g{stroke:#eaecee}
.l{stroke:#c0392b;stroke-dasharray:5 4}.k,h3{font-size:13px;margin:.4em 0}
section{border-top:2px solid #d5d8dc;margin-top:2em}
code{font-size:12px}
@media(prefers-color-scheme:dark){body{background:#17202a;color:#eaecee}td,th{border-color:#2c3e50}
.g{stroke:#2c3e50}svg text{fill:#aeb6bf}}
</style>)";

}  // namespace

std::string EvidenceText(const json& evidence) {
  std::string out = fmt::format("{}  {} -> {}  {:g} % -> {:g} %  (attempt {:.0f}, epoch {:.0f})\n  {}\n",
                                Time(Number(evidence, "when_ms")), Text(evidence, "from"), Text(evidence, "to"),
                                Number(evidence, "percent_before"), Number(evidence, "percent_after"),
                                Number(evidence, "attempt"), Number(evidence, "epoch"), Text(evidence, "cause"));
  for (const json& check : Array(evidence, "checks")) {
    out +=
        fmt::format("  {:<14} {:<13} canary {:<9} baseline {:<9} ratio {:<7} e-value {} of {}\n", Text(check, "name"),
                    Text(check, "verdict"), Show(Number(check, "canary")), Show(Number(check, "baseline")),
                    Show(Number(check, "ratio")), Show(Number(check, "e_value")), Show(Number(check, "e_limit")));
  }
  const json& examples = Array(evidence, "examples");
  if (!examples.empty()) out += "  failed requests:";
  for (const json& id : examples) out += " " + (id.is_string() ? id.get<std::string>() : "");
  if (!examples.empty()) out += "\n";
  return out;
}

std::string EvidencePage(const std::string& flag, const std::vector<json>& evidence) {
  std::string page = fmt::format(
      "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>Rollout of "
      "{0}</title>{1}"
      "<h1>Rollout of {0}</h1>",
      Escaped(flag), kStyle);
  if (evidence.empty()) page += "<p>Nothing was decided yet.</p>";
  for (const json& one : evidence) {
    double limit = 0, highest = 10;
    for (const json& check : Array(one, "checks")) {
      const double at = Number(check, "e_limit");
      if (!std::isnan(at)) limit = std::max(limit, at);
    }
    highest = std::max(highest, limit * 10);
    page += fmt::format(
        "<section><h2>{} &rarr; {}: {:g} % &rarr; {:g} %</h2><p>{}, attempt {:.0f}, epoch {:.0f}, by replica {}</p>"
        "<p><b>{}</b></p><p>Events in the stage: {} canary, {} baseline.</p>{}",
        Escaped(Text(one, "from")), Escaped(Text(one, "to")), Number(one, "percent_before"),
        Number(one, "percent_after"), Time(Number(one, "when_ms")), Number(one, "attempt"), Number(one, "epoch"),
        Escaped(Text(one, "by_replica")), Escaped(Text(one, "cause")), Show(Number(one, "canary_events")),
        Show(Number(one, "baseline_events")), Table(one));
    const auto series = one.find("series");
    if (series != one.end() && series->is_object()) {
      page += Plot(*series, "ratios", "Ratio of canary to baseline", {0, 4, false}, 0);
      page += Plot(*series, "e_values", "Evidence that the canary is worse (e-value, logarithmic)",
                   {1e-3, highest, true}, limit);
    }
    const json& examples = Array(one, "examples");
    if (!examples.empty()) page += "<p>Failed requests of the canary: ";
    for (const json& id : examples) {
      page += fmt::format("<code>{}</code> ", Escaped(id.is_string() ? id.get<std::string>() : ""));
    }
    const auto config = one.find("config");
    if (config != one.end()) {
      page += fmt::format("<details><summary>Configuration</summary><pre>{}</pre></details>", Escaped(config->dump(2)));
    }
    page += "</section>";
  }
  return page;
}

}  // namespace sluice::cli
