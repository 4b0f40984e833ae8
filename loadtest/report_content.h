// What the reports for people say, in words and tables; the text, Markdown and HTML renderers only lay it out. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "loadtest/summary.h"

namespace sluice::loadtest {

// Cells hold foreign text as it came: the renderers escape it.
struct Table {
  std::string title, note;  // note: how to read it
  std::vector<std::string> header;
  std::string align;  // a letter a column: l text, r number, v verdict
  std::vector<std::vector<std::string>> rows;
};

// "INVALID", "MISSED", "REACHED", "BEATEN" or "MEASURED" (no checks), and the sentence that says why.
struct Headline {
  std::string word, sentence;
};
Headline HeadlineOf(const Summary& summary);

// Name, kind, seed and what sets this run apart (quick, interrupted).
std::string Subtitle(const Summary& summary);

// How many of a row's leading text cells say what the row above says.
size_t Repeated(const Table& table, size_t row);

// Tables that have rows, in the order of interest: checks and comparisons; then requests, throughput, latency, errors
// and pipelines. `detailed`: every latency metric and percentile; else those that fit a terminal.
std::vector<Table> VerdictTables(const Summary& summary);
std::vector<Table> MeasurementTables(const Summary& summary, bool detailed);
Table EnvironmentTable(const Summary& summary);
Table FormulaTable();

// "8 req/s", "16 streams".
std::string OfferedText(const Cell& cell);
// The legend of intervals.
inline constexpr char kIntervalNote[] =
    "Values are followed by their 95 % interval: 412 [398, 431]. ∞: too few samples for that end. –: not measured.";

}  // namespace sluice::loadtest
