// The report as GitHub-flavoured Markdown. Pure.
#pragma once

#include <string>

#include "loadtest/summary.h"

namespace sluice::loadtest {

// What the text report says, with every latency metric, the environment and the formulas. Foreign text is escaped.
std::string MarkdownReport(const Summary& summary);

}  // namespace sluice::loadtest
