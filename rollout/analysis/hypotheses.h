// What the analysis tests, in one place: which alternatives it bets on and how much evidence it asks for. Used by the
// code that decides and by the planner that says how long deciding takes.
#pragma once

#include "rollout/analysis/e_process.h"

namespace sluice::rollout {

inline constexpr double kWorseTail = 1.2;  // times the baseline's: a tail longer by less is nobody's alarm

RatioTest ErrorsWorse();
RatioTest ErrorsBetter(double max_ratio);
RateTest ErrorsAllowed(double allowed_rate);
RateTest RateAbove(double rate);
RatioTest TailExceeds(bool towards_worse);  // of exceedances: see exceedance.h

// Errors, TTFT, latency and crashes share alpha.
constexpr double FailLimit(double alpha) { return 4 / alpha; }
constexpr double ErrorPassLimit(double beta) { return 2 / beta; }  // either of two tests may show it
constexpr double TailPassLimit(double beta) { return 1 / beta; }

}  // namespace sluice::rollout
