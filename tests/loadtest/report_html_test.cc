#include "loadtest/report_html.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "loadtest/report_markdown.h"
#include "loadtest/report_plots.h"
#include "loadtest/report_text.h"
#include "tests/loadtest/example_summary.h"
#include "tests/loadtest/xml_check.h"

namespace sluice::loadtest {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Titles(const Summary& summary) {
  std::vector<std::string> titles;
  for (const PlotGroup& group : PlotsOf(summary)) {
    for (const PlotSpec& plot : group.plots) titles.push_back(plot.title);
  }
  return titles;
}

TEST(Plots, SweepOfTwoArms) {
  const std::vector<std::string> titles = Titles(ExampleSummary(2));
  EXPECT_THAT(titles, ElementsAre("TTFT p50", "TTFT p95", "TTFT p99", "e2e latency p50", "e2e latency p95",
                                  "e2e latency p99", "Throughput and goodput", "Throughput against TTFT p95",
                                  "Throughput against e2e p95", "TTFT at 2 req/s", "TTFT at 4 req/s", "At 2 req/s",
                                  "At 4 req/s", "Rate", "In flight", "Output", "TTFT p95", "CPU", "RSS"));
}

TEST(Plots, WithoutDataThereIsNoPlot) {
  Summary summary = ExampleSummary(1);
  EXPECT_THAT(Titles(summary), Not(Contains("TTFT p50"))) << "one level has no curve";
  summary.timeline.clear();
  for (Cell& cell : summary.cells) cell.per_block.clear();
  EXPECT_THAT(Titles(summary), ElementsAre("TTFT at 2 req/s"));
  for (Cell& cell : summary.cells) cell.ttft_ecdf.clear();
  EXPECT_TRUE(PlotsOf(summary).empty());
  EXPECT_TRUE(PlotsOf({}).empty());
}

TEST(Plots, OneArmHasItsPercentilesInOnePlot) {
  Summary summary = ExampleSummary(3);
  std::erase_if(summary.cells, [](const Cell& cell) { return cell.arm != "ttft"; });
  summary.arms = {"ttft"};
  const PlotSpec spec = PlotsOf(summary).front().plots.front();
  ASSERT_EQ(spec.series.size(), 3u);
  EXPECT_EQ(spec.series[1].name, "p95");
  EXPECT_NE(spec.series[0].dash, spec.series[1].dash);
  EXPECT_EQ(spec.series[0].points.size(), 3u);
}

TEST(Plots, LongTimelinesAreThinnedOutAndKeepTheirPeaks) {
  Summary summary{.arms = {"a"}};
  for (int s = 0; s < 3600; ++s) {
    summary.timeline["a"].push_back({.at_s = static_cast<double>(s), .started = 10, .in_flight = s == 1801 ? 900 : 5});
  }
  const PlotGroup group = PlotsOf(summary).front();
  EXPECT_THAT(group.note, HasSubstr("A point stands for 12 s"));
  for (const PlotSpec& plot : group.plots) {
    EXPECT_LE(plot.series.front().points.size(), 300u);
    if (plot.title != "In flight") continue;
    double peak = 0;
    for (const Point& p : plot.series.front().points) peak = std::max(peak, p.y);
    EXPECT_EQ(peak, 900);
  }
}

TEST(Plots, UnmeasuredSecondsAreGaps) {
  Summary summary{.arms = {"a"}};
  for (const double s : {0, 1, 2, 20, 21}) summary.timeline["a"].push_back({.at_s = s, .started = 10});
  const PlotSpec rate = PlotsOf(summary).front().plots.front();
  EXPECT_EQ(rate.series.front().points.size(), 6u);
  EXPECT_TRUE(std::isnan(rate.series.front().points[3].y));
}

TEST(HtmlReport, IsWellFormedAndLoadsNothing) {
  for (const int levels : {1, 2, 7, 20}) {
    const std::string html = HtmlReport(ExampleSummary(levels));
    EXPECT_EQ(XmlError(html), "");
    for (const char* outside : {"<script", "src=", "href=", "url(", "@import"})
      EXPECT_THAT(html, Not(HasSubstr(outside)));
    EXPECT_THAT(html, Not(AnyOf(HasSubstr("nan"), HasSubstr(" inf"))));
  }
}

TEST(HtmlReport, SaysWhatWasMeasured) {
  const std::string html = HtmlReport(ExampleSummary(2));
  EXPECT_THAT(html, HasSubstr("<h1>shared-prefix</h1>"));
  EXPECT_THAT(html, HasSubstr("headline missed"));
  EXPECT_THAT(html, HasSubstr("<span class=\"verdict beaten\">beaten</span>"));
  EXPECT_THAT(html, HasSubstr("0.776 <small>[0.741, 0.813]</small>"));
  EXPECT_THAT(html, HasSubstr("SmolLM2-135M-Instruct.Q8_0.gguf"));
  EXPECT_THAT(html, HasSubstr("fault: stall of baseline"));
  EXPECT_THAT(html, HasSubstr("<h2>Formulas</h2>"));
}

TEST(HtmlReport, HostileTextEverywhere) {
  Summary summary = ExampleSummary(2);
  summary.arms[0] = summary.scenario = summary.description = summary.kind = kHostile;
  for (Cell& cell : summary.cells) {
    if (cell.arm == "baseline") cell.arm = kHostile;
    cell.errors[kHostile] = 1;
    cell.error_examples[kHostile] = cell.failure_mode = kHostile;
    cell.pipelines[kHostile] = 1;
    cell.per_block = {{kHostile, {1, 2, 3}}};
  }
  summary.timeline[kHostile] = summary.timeline["baseline"];
  summary.comparisons[0] = {kHostile, kHostile, kHostile, 1, 2, {0.5, 0.4, 0.6}, kHostile};
  summary.checks[0].text = summary.checks[0].note = kHostile;
  summary.faults[0].action = summary.faults[0].arm = kHostile;
  summary.notes = summary.invalid = {kHostile};
  summary.environment = {{kHostile, kHostile}};
  const std::string html = HtmlReport(summary);
  EXPECT_EQ(XmlError(html), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("headline invalid"));
}

TEST(HtmlReport, EmptyRun) {
  const std::string html = HtmlReport({.scenario = "nothing"});
  EXPECT_EQ(XmlError(html), "");
  EXPECT_THAT(html, HasSubstr("Nothing was measured."));
  EXPECT_THAT(html, Not(HasSubstr("<svg")));
}

// To look at: DISABLED_, run by hand with --gtest_also_run_disabled_tests and a folder in SLUICE_REPORT_OUT.
TEST(HtmlReport, DISABLED_WriteExamples) {
  const char* folder = std::getenv("SLUICE_REPORT_OUT");
  ASSERT_NE(folder, nullptr) << "set SLUICE_REPORT_OUT to a folder";
  Summary invalid = ExampleSummary(1), one = ExampleSummary(7);
  invalid.invalid = {"client-limited: ttft, block 2, level 0: 93 % of the generator's cores", "the run did not end"};
  std::erase_if(one.cells, [](const Cell& cell) { return cell.arm != "ttft"; });
  one.arms = {"ttft"};
  one.timeline.erase("baseline");
  const std::pair<const char*, Summary> examples[] = {
      {"sweep", ExampleSummary(7)}, {"invalid", invalid}, {"one_arm", one}};
  for (const auto& [name, summary] : examples) {
    const std::string path = std::string(folder) + "/" + name;
    std::ofstream(path + ".html") << HtmlReport(summary);
    std::ofstream(path + ".md") << MarkdownReport(summary);
    std::ofstream(path + ".txt") << TextReport(summary);
    EXPECT_TRUE(std::ifstream(path + ".html").good()) << path;
  }
}

}  // namespace
}  // namespace sluice::loadtest
