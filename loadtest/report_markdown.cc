#include "loadtest/report_markdown.h"

#include <cctype>

#include "loadtest/report_content.h"
#include "loadtest/report_format.h"

namespace sluice::loadtest {
namespace {

// Escapes what could start markup. Brackets make a link only before "(", "[" or ":", an underscore makes emphasis only
// at the edge of a word; elsewhere both stay readable.
std::string Escaped(const std::string& foreign) {
  const std::string text = Printable(foreign);
  const auto at = [&](size_t i) { return i < text.size() ? text[i] : ' '; };
  const auto word = [&](size_t i) { return std::isalnum(static_cast<unsigned char>(at(i))) != 0; };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i], next = at(i + 1);
    const bool link = c == ']' && (next == '(' || next == '[' || next == ':');
    const bool emphasis = c == '_' && !(i > 0 && word(i - 1) && word(i + 1));
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      if (link || emphasis || std::string("\\`*|~#").find(c) != std::string::npos) out += '\\';
      out += c;
    }
  }
  return out;
}

std::string Row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + Escaped(cell) + " |";
  return line + "\n";
}

std::string TableMarkdown(const Table& table) {
  std::string out = "\n## " + table.title + "\n\n";
  if (!table.note.empty()) out += table.note + "\n\n";
  out += Row(table.header) + "|";
  for (const char align : table.align) out += align == 'r' ? " ---: |" : " --- |";
  out += "\n";
  for (const auto& row : table.rows) out += Row(row);
  return out;
}

std::string List(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += "- " + Escaped(item) + "\n";
  return out;
}

}  // namespace

std::string MarkdownReport(const Summary& summary) {
  const Headline headline = HeadlineOf(summary);
  std::string out = "# sluice-bench: " + Escaped(Subtitle(summary)) + "\n\n";
  if (!summary.invalid.empty()) {
    out += "> **" + headline.word + ": " + headline.sentence + ".**\n>\n";
    for (const std::string& reason : summary.invalid) out += "> - " + Escaped(reason) + "\n";
  } else {
    out += "**" + headline.word + "**: " + headline.sentence + "\n";
  }
  if (!summary.description.empty()) out += "\n" + Escaped(summary.description) + "\n";
  out += summary.cells.empty() ? "\nNothing was measured.\n" : std::string("\n") + kIntervalNote + "\n";
  for (const Table& table : VerdictTables(summary)) out += TableMarkdown(table);
  if (!summary.notes.empty()) out += "\n## Notes\n\n" + List(summary.notes);
  for (const Table& table : MeasurementTables(summary, /*detailed=*/true)) out += TableMarkdown(table);
  const Table environment = EnvironmentTable(summary), formulas = FormulaTable();
  for (const Table& table : {environment, formulas}) {
    if (!table.rows.empty()) out += TableMarkdown(table);
  }
  return out;
}

}  // namespace sluice::loadtest
