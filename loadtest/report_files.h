// Every report of one run, written beside its run.jsonl.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "loadtest/summary.h"

namespace sluice::loadtest {

// report.txt, report.md, report.json, report.html, and vllm-ARM.json (vLLM's --save-result keys) of each arm.
// INVALID_ARGUMENT with the path that cannot be written.
absl::Status WriteReports(const std::string& folder, const Run& run, const Summary& summary);

}  // namespace sluice::loadtest
