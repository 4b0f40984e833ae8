// Hand-made summaries for the tests of the reports.
#pragma once

#include "loadtest/summary.h"

namespace sluice::loadtest {

// Markup, quotes, a terminal escape, a line break, invalid UTF-8 and a bidirectional override.
inline constexpr char kHostile[] = "<script>alert('x')</script> & \"a|b\" \x1b[31m\n\xff ]( \xe2\x80\xae`*";

// A sweep of two arms over `levels` levels with everything filled: checks, comparisons, errors, timeline, a fault, NaN
// and infinite ends. Deterministic.
Summary ExampleSummary(int levels);

}  // namespace sluice::loadtest
