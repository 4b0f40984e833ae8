// The engine comparison's own YAML, in the shape that the seeds gave it: benchmark, models, questions, plus engines.
// Each enabled model becomes a scenario: one stream, engines interleaved in `cycles` blocks.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/summary.h"

namespace sluice::loadtest {

// True when the text has a `benchmark:` map at its top.
bool IsComparison(const std::string& file, const std::string& text);

struct ComparisonModel {
  std::string name, size;
  int questions = 0, cycles = 0, max_tokens = 0;
  double temperature = 0;
  std::string scenario_yaml;
};

// All faults at once, "file:line: key: what; allowed".
absl::StatusOr<std::vector<ComparisonModel>> ReadComparison(const std::string& file, const std::string& text);

// The ancestor's result format: timestamp, benchmark_type "fair_comparison", per engine cycles and average, comparison
// with improvement and winner ("none" unless the intervals say so).
std::string ComparisonJson(const ComparisonModel& model, const Summary& summary);

}  // namespace sluice::loadtest
