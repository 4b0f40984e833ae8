// From records to one Cell per arm and level, and to the timeline. Pure; used by Summarize.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "loadtest/summary.h"

namespace sluice::loadtest {

std::vector<Cell> MakeCells(const Run& run, const Scenario& scenario);
std::map<std::string, std::vector<Second>> MakeTimeline(const Run& run);

// True for a success within every SLO (vLLM's goodput).
bool WithinSlo(const Record& record, const SloSpec& slo);

// Milliseconds; NaN when the record does not have it.
double TtftMs(const Record& record);  // first_token - scheduled
double TpotMs(const Record& record);  // (last_token - first_token) / (output_tokens - 1)
double E2eMs(const Record& record);   // done - scheduled

}  // namespace sluice::loadtest
