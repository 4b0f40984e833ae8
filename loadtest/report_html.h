// The report as one HTML file. Pure.
#pragma once

#include <string>

#include "loadtest/summary.h"

namespace sluice::loadtest {

// Complete in itself: styles and plots inline, no script, nothing loaded. Light and dark as the reader's system says,
// ink on paper. Well-formed XML too (after the doctype). Foreign text is escaped.
std::string HtmlReport(const Summary& summary);

}  // namespace sluice::loadtest
