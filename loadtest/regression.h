// Has it become slower? Two binaries interleaved, or a stored baseline of the same machine.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "loadtest/summary.h"

namespace sluice::loadtest {

// What is kept of a run: per-block values of every scalar, and where they were measured.
struct Baseline {
  std::string fingerprint, scenario, model_sha256, commit;
  bool quick = false;
  std::map<std::string, std::vector<double>> per_block;  // of the first arm, level 0
};

Baseline BaselineOf(const Summary& summary);
std::string ToJson(const Baseline& baseline);
// NOT_FOUND: no such file; INVALID_ARGUMENT: not a baseline.
absl::StatusOr<Baseline> ReadBaseline(const std::string& path);

// Adds a check for each scalar of scenario.compare: worse by more than the tolerance *and* significantly (95 %) is
// missed. An interval so wide that twice the tolerance could hide in it is invalid: too noisy to say. A baseline of
// another machine, scenario or model makes the summary invalid.
void JudgeAgainst(const Baseline& baseline, const Scenario& scenario, Summary& summary);
// The same between the first arm (the old one) and the second, in pairs of blocks.
void JudgeArms(const Scenario& scenario, Summary& summary);

}  // namespace sluice::loadtest
