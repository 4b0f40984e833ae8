// Reports for programs. Pure; nothing in them is NaN or infinite (null instead), every string is valid UTF-8.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "loadtest/summary.h"

namespace sluice::loadtest {

// The whole summary; keys as the fields of Summary, an estimate is {"value", "low", "high"}. Keys are only ever added;
// "version" counts changes of meaning.
nlohmann::json SummaryJson(const Summary& summary);

// The result file of vLLM's `vllm bench serve --save-result --save-detailed` for one arm, so that its readers work:
// arrays in seconds, `*_ms` in milliseconds, latencies counted from the send (unlike the rest of our reports, which
// count from the schedule), standard deviations over n, statistics over successful requests, 0 where there are none.
// Warm-up and planned cancels are left out, which vLLM does not know; levels of a sweep are pooled. An arm that is not
// in the run has empty arrays.
nlohmann::json VllmJson(const Run& run, const Summary& summary, const std::string& arm);

}  // namespace sluice::loadtest
