// The faults that an operator injects on purpose, by pipeline: for game days, and to see breakers and rollbacks act.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice::config {

struct Fault {
  double error_share = 0;  // 0..1 of the requests fail
  double crash_share = 0;  // 0..1 of the requests take the process down
  Duration delay{};        // before the engine gets each of them
  int64_t leak_bytes = 0;  // that each leaves behind

  bool operator==(const Fault&) const = default;
};
using FaultsByPipeline = std::map<std::string, Fault>;  // "baseline", "ttft"

// INVALID_ARGUMENT with a line for each fault of the file; NOT_FOUND. An empty file: no faults.
absl::StatusOr<FaultsByPipeline> LoadFaultFile(const std::string& path);

}  // namespace sluice::config
