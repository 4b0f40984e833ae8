// The report for a terminal. Pure.
#pragma once

#include <string>

#include "loadtest/summary.h"

namespace sluice::loadtest {

// UTF-8, no colours, at most 120 columns: text that does not fit is shortened, numbers never are. An invalid run says
// so first; verdicts stand at the end, above the prompt.
std::string TextReport(const Summary& summary);

}  // namespace sluice::loadtest
