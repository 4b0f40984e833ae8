// Where and why it breaks, and what drifts. Pure.
#pragma once

#include <string>
#include <vector>

#include "loadtest/summary.h"

namespace sluice::loadtest {

// Why a level failed: "none", or the first that holds of
//   crash               the process ended
//   client_limited      the generator was not up to it: says nothing about the server
//   out_of_memory       resident memory above 90 % of the limit
//   admission_rejected  above 5 % RESOURCE_EXHAUSTED (HTTP 429)
//   timeout             above 5 % DEADLINE_EXCEEDED
//   high_error_rate     above 10 % failed
//   saturated           in-flight and TTFT both rise through the level: their slopes' 95 % intervals are above 0 (the
//                       test of guidellm's over-saturation detector), and the median TTFT of the last third of at least
//                       40 requests is more than twice that of the first
//   resource_exhaustion CPU above 95 % of all cores and TTFT p95 above 2 s
// Fewer than five failures of a kind say nothing. Timeouts come before the error rate, which they are part of.
std::string FailureMode(const Run& run, const Cell& cell);

// The slope test alone.
bool Saturated(const std::vector<const Record*>& records);

// Fills failure_mode of every cell and notes breaking point and last good level of each arm.
void JudgeStress(const Run& run, const Scenario& scenario, Summary& summary);

// Adds checks: growth of RSS and of TTFT p95 over the run (Theil–Sen over 10-second windows) at most the tolerance.
void JudgeDrift(const Run& run, const Scenario& scenario, Summary& summary);

}  // namespace sluice::loadtest
