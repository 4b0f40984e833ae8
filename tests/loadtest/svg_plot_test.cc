#include "loadtest/svg_plot.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/loadtest/example_summary.h"
#include "tests/loadtest/xml_check.h"

namespace sluice::loadtest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

PlotSpec Simple(std::vector<Point> points) {
  return {.title = "t", .x_label = "x", .y_label = "y", .series = {{.name = "a", .points = std::move(points)}}};
}

TEST(NiceTicks, AreRoundAndCoverTheRange) {
  EXPECT_THAT(NiceTicks(0, 100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(NiceTicks(0, 9.2, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  for (double high = 1e-9; high < 1e9; high *= 1.37) {
    const std::vector<double> ticks = NiceTicks(0, high, 5);
    EXPECT_EQ(ticks.front(), 0);
    EXPECT_GE(ticks.back(), high * (1 - 1e-9));
    EXPECT_GE(ticks.size(), 3u) << high;
    EXPECT_LE(ticks.size(), 8u) << high;
  }
}

TEST(LogTicks, OneTwoFiveThenPowersOnly) {
  EXPECT_THAT(LogTicks(10, 100), ElementsAre(10, 20, 50, 100));
  EXPECT_THAT(LogTicks(0.9, 20000), ElementsAre(1, 10, 100, 1000, 10000));
}

TEST(SvgPlot, WithoutDataThereIsNone) {
  EXPECT_EQ(SvgPlot({}), "");
  EXPECT_EQ(SvgPlot(Simple({})), "");
  EXPECT_EQ(SvgPlot(Simple({{.x = 1, .y = kNan}, {.x = kNan, .y = 1}, {.x = 1, .y = INFINITY}})), "");
  PlotSpec log = Simple({{.x = 1, .y = 0}});
  EXPECT_TRUE(HasData(log));
  log.log_y = true;
  EXPECT_FALSE(HasData(log));
}

TEST(SvgPlot, WellFormedWhateverTheValues) {
  const double values[] = {0, -3, 1e-300, 1e300, 5, kNan, INFINITY, -INFINITY};
  std::vector<Point> points;
  for (const double x : values) {
    for (const double y : values) points.push_back({x, y, y - 1, INFINITY, kHostile});
  }
  for (const bool log : {false, true}) {
    for (const bool whole : {false, true}) {
      PlotSpec spec =
          Simple({{.x = 1, .y = 2}, {.x = 2, .y = kNan}, {.x = 3, .y = 5, .low = -INFINITY, .high = INFINITY}});
      spec.series.push_back({.name = kHostile, .points = points, .step = log});
      if (whole) spec.series.pop_back();  // ticks at whole numbers up to 1e300 are not asked for
      spec.shades = {{0.5, 1.5, kHostile}, {-5, -4, "outside"}};
      spec.title = spec.x_label = spec.y_label = kHostile;
      spec.log_x = log && !whole;
      spec.log_y = log;
      spec.diagonal = spec.join = true;
      spec.whole_x = whole;
      const std::string svg = SvgPlot(spec);
      EXPECT_EQ(XmlError(svg), "") << svg;
      EXPECT_THAT(svg, Not(HasSubstr("nan")));
      EXPECT_THAT(svg, Not(HasSubstr("inf")));
      EXPECT_THAT(svg, Not(HasSubstr("<script")));
    }
  }
}

TEST(SvgPlot, SinglePointAndFlatLine) {
  for (const std::vector<Point>& points :
       {std::vector<Point>{{.x = 0, .y = 0}}, {{.x = 4, .y = 7}}, {{.x = 1, .y = 3}, {.x = 2, .y = 3}}}) {
    for (const bool log : {false, true}) {
      PlotSpec spec = Simple(points);
      spec.log_x = spec.log_y = log;
      if (!HasData(spec)) continue;
      EXPECT_EQ(XmlError(SvgPlot(spec)), "");
      EXPECT_THAT(SvgPlot(spec), Not(HasSubstr("nan")));
    }
  }
}

TEST(SvgPlot, AxesStartAtZeroUnlessLogarithmic) {
  PlotSpec spec = Simple({{.x = 200, .y = 300}, {.x = 210, .y = 310}});
  EXPECT_THAT(SvgPlot(spec), HasSubstr(">0</text>"));
  spec.log_x = spec.log_y = true;
  EXPECT_THAT(SvgPlot(spec), Not(HasSubstr(">0</text>")));
  EXPECT_THAT(SvgPlot(spec), HasSubstr("y (log)"));
}

TEST(SvgPlot, GapsBreakTheLine) {
  const std::vector<Point> whole = {{.x = 1, .y = 1}, {.x = 2, .y = 2}, {.x = 3, .y = 3}, {.x = 4, .y = 4}};
  std::vector<Point> broken = whole;
  broken.insert(broken.begin() + 2, {.x = 2.5, .y = kNan});
  const std::string line = "stroke-linejoin";
  EXPECT_EQ(CountOf(SvgPlot(Simple(whole)), line), 1u);
  EXPECT_EQ(CountOf(SvgPlot(Simple(broken)), line), 2u);
}

TEST(SvgPlot, OpenIntervalsAreArrowsNotWalls) {
  const std::string arrow = "v-16m-3";
  EXPECT_EQ(CountOf(SvgPlot(Simple({{1, 1, 0.5, 1.5}, {2, 2, 1.5, 2.5}})), arrow), 0u);
  EXPECT_EQ(CountOf(SvgPlot(Simple({{1, 1, 0.5, INFINITY}, {2, 2, 1.5, INFINITY}})), arrow), 2u);
}

TEST(SvgPlot, TooltipsAndLegend) {
  PlotSpec spec = Simple({{.x = 1, .y = 1, .tooltip = "one"}, {.x = 2, .y = 2, .tooltip = "two"}});
  spec.series.push_back({.points = {{.x = 1, .y = 2}}});
  spec.shades = {{1, 1.2, "stall"}, {1.5, 1.6, "stall"}};
  const std::string svg = SvgPlot(spec);
  EXPECT_THAT(svg, HasSubstr("<title>one</title>"));
  EXPECT_EQ(CountOf(svg, "<title>stall</title>"), 2u) << "each window";
  EXPECT_EQ(CountOf(svg, ">stall</text>"), 1u) << "once in the legend";
}

TEST(SvgPlot, ManySeriesHaveALegendOfSeveralRowsAndNoneIsLost) {
  PlotSpec spec = Simple({{.x = 1, .y = 1}});
  for (int i = 0; i < 9; ++i) {
    spec.series.push_back(
        {.name = "a long name of an arm " + std::to_string(i), .points = {{.x = 1, .y = 1}}, .color = i, .dash = i});
  }
  const std::string svg = SvgPlot(spec);
  EXPECT_EQ(XmlError(svg), "");
  for (int i = 0; i < 9; ++i) EXPECT_THAT(svg, HasSubstr("a long name of an arm " + std::to_string(i)));
}

}  // namespace
}  // namespace sluice::loadtest
