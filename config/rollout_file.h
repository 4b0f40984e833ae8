// config/rollouts.yaml: how each flag's percentage may be raised, and what takes it back. Every fault at once, as in
// config_loader.h.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "rollout/rollout_spec.h"

namespace sluice::config {

struct RolloutFile {
  Duration window = std::chrono::seconds(10);  // evidence is weighed once in it, on every replica at the same time
  std::vector<rollout::RolloutSpec> rollouts;
};

// INVALID_ARGUMENT with a line for each fault; NOT_FOUND.
absl::StatusOr<RolloutFile> LoadRolloutFile(const std::string& path);

}  // namespace sluice::config
