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

// Tables with rows, in the order of interest: checks, comparisons, requests, throughput, latency, errors, pipelines.
// `detailed`: every latency metric and percentile; else those that fit a terminal.
std::vector<Table> ResultTables(const Summary& summary, bool detailed);
Table EnvironmentTable(const Summary& summary);
Table FormulaTable();

// "8 req/s", "16 streams".
std::string OfferedText(const Cell& cell);
// The legend of intervals.
inline constexpr char kIntervalNote[] =
    "Values are followed by their 95 % interval: 412 [398, 431]. ∞: too few samples for that end. –: not measured.";

}  // namespace sluice::loadtest
