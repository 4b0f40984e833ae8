// Every report of one run, written beside its run.jsonl.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "loadtest/summary.h"

namespace sluice::loadtest {

// report.txt, report.md, report.json, report.html, and vllm-ARM.json (vLLM's --save-result keys) of each arm.
absl::Status WriteReports(const std::string& folder, const Run& run, const Summary& summary);

// UNAVAILABLE or PERMISSION_DENIED with the path.
absl::Status WriteFile(const std::string& path, const std::string& text);
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace sluice::loadtest
