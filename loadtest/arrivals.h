// When requests are sent, fixed before the first one goes out. Pure.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/scenario.h"

namespace sluice::loadtest {

// Ascending offsets from the start of an open loop at `rate` (ramp: from there to rate_end), over `duration`, or as
// many as `count` when that is above 0. Poisson and gamma gaps are scaled so that the mean rate is exactly `rate`, as
// vLLM's benchmark does; a seed otherwise moves it by some percent. Traces: see ReadTrace. Requires: not closed.
std::vector<Duration> Arrivals(const LoadSpec& load, double rate, Duration duration, int64_t count, uint64_t seed);

// Offsets of a trace file, one a line in seconds, ascending. INVALID_ARGUMENT with file and line.
absl::StatusOr<std::vector<Duration>> ReadTrace(const std::string& path);

}  // namespace sluice::loadtest
