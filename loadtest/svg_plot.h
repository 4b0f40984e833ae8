// Line and dot plots as inline SVG. Pure functions.
//
// Self-contained and well-formed XML; text takes the colour of its surroundings. Series are told apart three times, by
// colour (Okabe & Ito 2008, safe for colour-blind readers), dash and marker; a page may set --c0 … --c5 to its own
// shades.
#pragma once

#include <string>
#include <vector>

#include "loadtest/statistics.h"

namespace sluice::loadtest {

struct Point {
  double x = 0, y = kNan;          // NaN: a gap
  double low = kNan, high = kNan;  // interval, drawn as a band; infinite: an arrow
  std::string tooltip;
};

struct Series {
  std::string name;  // empty: not in the legend
  std::vector<Point> points;
  int color = 0, dash = 0;  // any number: taken modulo the palette
  bool line = true, markers = true, step = false;
};

// A window of x, drawn behind the data.
struct Shade {
  double from = 0, to = 0;
  std::string name;
};

struct PlotSpec {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  std::vector<Shade> shades;
  bool log_x = false, log_y = false;  // values at or below 0 are gaps then; else the axis starts at 0
  bool diagonal = false;              // y = x for reference
  bool join = false;                  // a line between the dots of equal x: pairs
  bool whole_x = false;               // ticks at whole numbers only, half a step of air at both sides
  double y_max = kNan;                // fixed end of the axis
  int width = 380, height = 250;      // without the legend
};

bool HasData(const PlotSpec& spec);
// Empty without data.
std::string SvgPlot(const PlotSpec& spec);

// Round numbers (1, 2 or 5 × 10^n apart) that cover [low, high], about `count` of them; low < high, finite.
std::vector<double> NiceTicks(double low, double high, int count);
// 1, 2, 5 × 10^n inside [low, high], only powers of ten over more than three decades, few of them over many; 0 < low <
// high.
std::vector<double> LogTicks(double low, double high);

}  // namespace sluice::loadtest
