#include "loadtest/report_html.h"

#include <fmt/format.h>

#include "loadtest/report_content.h"
#include "loadtest/report_format.h"
#include "loadtest/report_plots.h"

namespace sluice::loadtest {
namespace {

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --faint: #a9b3be; --paper: #ffffff;
  --card: #f6f8fa; --line: #d9dfe6;
  --good: #0b6e4f; --good-bg: #dff3ea; --bad: #a63300; --bad-bg: #fdeadf; --worst: #ffffff; --worst-bg: #b00020; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #9aa7b5; --faint: #56616d; --paper: #12171d; --card: #1a212a; --line: #2e3844;
    --good: #7fe0b8; --good-bg: #113a2c; --bad: #ffb28a; --bad-bg: #46230f; --worst: #ffffff; --worst-bg: #b3213a;
    --c0: #5ab4f0; --c1: #ff8b4a; --c2: #2fcf9f; --c3: #e6a3c8; --c4: #f2bd4a; --c5: #9adcff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1210px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 38px 0 2px; padding-top: 12px; border-top: 1px solid var(--line); }
p { margin: 4px 0 10px; max-width: 90ch; overflow-wrap: anywhere; }
.soft, .note { color: var(--soft); }
.note { font-size: 13.5px; }
.headline { display: flex; gap: 12px; align-items: baseline; margin: 18px 0; padding: 12px 16px; border-radius: 8px;
  background: var(--card); border-left: 6px solid var(--soft); }
.headline b { font-size: 18px; letter-spacing: .04em; }
.headline.reached, .headline.beaten { background: var(--good-bg); border-color: var(--good); }
.headline.reached b, .headline.beaten b { color: var(--good); }
.headline.missed { background: var(--bad-bg); border-color: var(--bad); }
.headline.missed b { color: var(--bad); }
.headline.invalid { background: var(--worst-bg); color: var(--worst); border-color: var(--worst-bg); }
.headline ul { margin: 6px 0 0; padding-left: 20px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; margin: 8px 0; }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; border-bottom: 2px solid var(--line); }
th.r, td.r { text-align: right; white-space: nowrap; }
td { overflow-wrap: break-word; max-width: 620px; }
td.l { min-width: 9ch; }
tr.group td { border-top: 2px solid var(--line); }
td.again { color: var(--faint); }
small { color: var(--soft); font-size: 11.5px; }
.verdict { padding: 1px 8px; border-radius: 10px; font-weight: 600; white-space: nowrap; }
.verdict.beaten, .verdict.reached { background: var(--good-bg); color: var(--good); }
.verdict.missed { background: var(--bad-bg); color: var(--bad); }
.verdict.invalid { background: var(--worst-bg); color: var(--worst); }
.plots { display: grid; gap: 22px 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); }
.plots.wide { display: block; }
svg { display: block; height: auto; }
figure { margin: 0; }
@media print { body { padding: 0; max-width: none; font-size: 11px; } table { font-size: 9px; }
  small { font-size: 8px; } .note { font-size: 10px; } h2 { font-size: 14px; }
  .plots { grid-template-columns: repeat(3, 1fr); } th, td { padding-right: 7px; }
  figure, tr, .headline { break-inside: avoid; } h2 { break-after: avoid; margin-top: 20px; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)";

// The interval of a number in small print; verdicts as badges; what the row above said too in grey.
std::string Cell(char align, const std::string& text, bool repeated) {
  const std::string safe = XmlText(text);
  if (align == 'v') return fmt::format("<td><span class=\"verdict {0}\">{0}</span></td>", safe);
  if (align == 'l') return fmt::format("<td class=\"l{}\">{}</td>", repeated ? " again" : "", safe);
  const size_t interval = safe.find(" [");
  if (interval == std::string::npos) return fmt::format("<td class=\"r\">{}</td>", safe);
  return fmt::format("<td class=\"r\">{} <small>{}</small></td>", safe.substr(0, interval), safe.substr(interval + 1));
}

std::string TableHtml(const Table& table) {
  if (table.rows.empty()) return "";
  std::string out = fmt::format("<section>\n<h2>{}</h2>\n", XmlText(table.title));
  if (!table.note.empty()) out += fmt::format("<p class=\"note\">{}</p>\n", XmlText(table.note));
  out += "<div class=\"scroll\"><table>\n<thead><tr>";
  for (size_t i = 0; i < table.header.size(); ++i) {
    out += fmt::format("<th class=\"{}\">{}</th>", table.align[i], XmlText(table.header[i]));
  }
  out += "</tr></thead>\n<tbody>\n";
  for (size_t n = 0; n < table.rows.size(); ++n) {
    const std::vector<std::string>& row = table.rows[n];
    const size_t repeated = Repeated(table, n);
    const bool starts_group = n > 0 && repeated == 0 && n + 1 < table.rows.size() && Repeated(table, n + 1) > 0;
    out += starts_group ? "<tr class=\"group\">" : "<tr>";
    for (size_t i = 0; i < row.size(); ++i) out += Cell(table.align[i], row[i], i < repeated);
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n</section>\n";
}

std::string ListHtml(const std::vector<std::string>& items) {
  std::string out = "<ul>";
  for (const std::string& item : items) out += "<li>" + XmlText(item) + "</li>";
  return out + "</ul>";
}

std::string HeaderHtml(const Summary& summary) {
  const Headline headline = HeadlineOf(summary);
  std::string style = headline.word;
  for (char& c : style) c = static_cast<char>(c | 0x20);  // lower case
  std::string out = fmt::format("<header>\n<h1>{}</h1>\n<p class=\"soft\">sluice-bench: {}</p>\n",
                                XmlText(summary.scenario), XmlText(Subtitle(summary)));
  if (!summary.description.empty()) out += fmt::format("<p>{}</p>\n", XmlText(summary.description));
  return out + fmt::format("<div class=\"headline {}\"><b>{}</b><div>{}.{}</div></div>\n</header>\n", style,
                           headline.word, XmlText(headline.sentence),
                           summary.invalid.empty() ? "" : ListHtml(summary.invalid));
}

std::string PlotsHtml(const PlotGroup& group) {
  std::string out = fmt::format("<section>\n<h2>{}</h2>\n<p class=\"note\">{}</p>\n<div class=\"plots{}\">\n",
                                XmlText(group.title), XmlText(group.note), group.wide() ? " wide" : "");
  for (const PlotSpec& plot : group.plots) out += "<figure>\n" + SvgPlot(plot) + "</figure>\n";
  return out + "</div>\n</section>\n";
}

}  // namespace

std::string HtmlReport(const Summary& summary) {
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{} · sluice-bench</title>\n"
      "<style>{}</style>\n</head>\n<body>\n",
      XmlText(summary.scenario), kStyle);
  out += HeaderHtml(summary);
  out += fmt::format("<p class=\"note\">{}</p>\n", summary.cells.empty() ? "Nothing was measured." : kIntervalNote);
  for (const Table& table : VerdictTables(summary)) out += TableHtml(table);
  if (!summary.notes.empty()) out += "<section>\n<h2>Notes</h2>\n" + ListHtml(summary.notes) + "\n</section>\n";
  std::string timeline;  // long, so after the numbers
  for (const PlotGroup& group : PlotsOf(summary)) (group.wide() ? timeline : out) += PlotsHtml(group);
  for (const Table& table : MeasurementTables(summary, /*detailed=*/true)) out += TableHtml(table);
  return out + timeline + TableHtml(EnvironmentTable(summary)) + TableHtml(FormulaTable()) + "</body>\n</html>\n";
}

}  // namespace sluice::loadtest
