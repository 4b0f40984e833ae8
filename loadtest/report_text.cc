#include "loadtest/report_text.h"

#include <algorithm>
#include <vector>

#include "loadtest/report_content.h"
#include "loadtest/report_format.h"

namespace sluice::loadtest {
namespace {

constexpr size_t kColumns = 120, kGap = 2, kNarrowest = 6;

// Column widths: the longest cell; then the widest text column gives way until the row fits.
std::vector<size_t> Widths(const Table& table) {
  std::vector<size_t> widths(table.header.size());
  size_t total = kGap * widths.size();  // the indent counts as a gap
  for (size_t i = 0; i < widths.size(); ++i) {
    widths[i] = Columns(table.header[i]);
    for (const auto& row : table.rows) widths[i] = std::max(widths[i], Columns(Printable(row[i])));
    total += widths[i];
  }
  while (total > kColumns) {
    size_t widest = widths.size();
    for (size_t i = 0; i < widths.size(); ++i) {
      const bool may_shrink = table.align[i] == 'l' && widths[i] > kNarrowest;
      if (may_shrink && (widest == widths.size() || widths[i] > widths[widest])) widest = i;
    }
    if (widest == widths.size()) break;
    --widths[widest];
    --total;
  }
  return widths;
}

std::string Line(const Table& table, const std::vector<size_t>& widths, const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string cell = Shortened(Printable(cells[i]), widths[i]);
    const std::string padding(widths[i] - Columns(cell), ' ');
    line += std::string(kGap, ' ') + (table.align[i] == 'r' ? padding + cell : cell + padding);
  }
  return line.erase(line.find_last_not_of(' ') + 1) + "\n";
}

// Breaks at spaces, the following lines indented like the first.
std::string Wrapped(const std::string& first, const std::string& rest, const std::string& text) {
  std::string out, line = first;
  std::string left = Printable(text);
  const size_t room = kColumns - Columns(first);
  while (Columns(left) > room) {
    const std::string head = Shortened(left, room);  // ends with "…", three bytes
    size_t cut = head.substr(0, head.size() - 3).rfind(' ');
    if (cut == std::string::npos || cut == 0) cut = head.size() - 3;
    out += line + left.substr(0, cut) + "\n";
    left = left.substr(left.find_first_not_of(' ', cut) == std::string::npos ? left.size()
                                                                             : left.find_first_not_of(' ', cut));
    line = rest;
  }
  return out + line + left + "\n";
}

std::string TableText(const Table& table) {
  const std::vector<size_t> widths = Widths(table);
  std::string out = "\n" + table.title + "\n";
  if (!table.note.empty()) out += Wrapped("  ", "  ", table.note);
  out += Line(table, widths, table.header);
  for (size_t i = 0; i < table.rows.size(); ++i) {
    std::vector<std::string> row = table.rows[i];
    std::fill_n(row.begin(), Repeated(table, i), "");
    out += Line(table, widths, row);
  }
  return out;
}

}  // namespace

std::string TextReport(const Summary& summary) {
  std::string out;
  const Headline headline = HeadlineOf(summary);
  if (!summary.invalid.empty()) {
    const std::string bar(kColumns, '!');
    out += bar + "\n" + Wrapped("!!  ", "!!  ", headline.word + ": " + headline.sentence + ".");
    for (const std::string& reason : summary.invalid) out += Wrapped("!!  - ", "!!    ", reason);
    out += bar + "\n\n";
  }
  out += Wrapped("", "", Subtitle(summary));
  if (!summary.description.empty()) out += Wrapped("", "", summary.description);
  if (summary.invalid.empty()) out += Wrapped("", "", headline.word + ": " + headline.sentence);
  if (summary.cells.empty()) {
    out += "\nNothing was measured.\n";
  } else {
    out += Wrapped("", "", kIntervalNote);
  }
  for (const Table& table : MeasurementTables(summary, /*detailed=*/false)) out += TableText(table);
  // What a reader at a terminal wants most stands last, above the prompt.
  for (const Table& table : VerdictTables(summary)) out += TableText(table);
  if (!summary.notes.empty()) out += "\nNotes\n";
  for (const std::string& note : summary.notes) out += Wrapped("  - ", "    ", note);
  out += "\n" + headline.word + ": " + headline.sentence + "\n";
  return out;
}

}  // namespace sluice::loadtest
