// Which plots a summary is worth. Pure.
#pragma once

#include <string>
#include <vector>

#include "loadtest/summary.h"
#include "loadtest/svg_plot.h"

namespace sluice::loadtest {

struct PlotGroup {
  std::string title, note;
  std::vector<PlotSpec> plots;                                               // none of them empty
  bool wide() const { return !plots.empty() && plots.front().width > 600; }  // one a row
};

// In the order of interest. What has no data is left out: plots against load need two levels, the timeline seconds.
std::vector<PlotGroup> PlotsOf(const Summary& summary);

}  // namespace sluice::loadtest
