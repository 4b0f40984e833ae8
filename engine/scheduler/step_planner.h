// Which prompts are computed in the next step, and how much of each? A pure function of a snapshot.
// Decode rows are always in; this decides the rest: a token allowance from the time budget, to the most urgent
// priority first, shared fairly between pipeline policies (start-time fair queueing, Goyal et al., SIGCOMM 1996),
// inside a policy by its own order.
#pragma once

#include <vector>

#include "base/clock.h"
#include "engine/scheduler/pipeline_policy.h"
#include "engine/scheduler/step_cost.h"

namespace sluice::engine {

// A prompt that could be computed further: it holds a slot, or waits for one.
struct PrefillCandidate {
  int id = 0;        // the caller's handle
  int policy = 0;    // index into PlanInput::policies
  int priority = 0;  // smaller first
  bool needs_slot = false;
  int uncomputed = 0;    // tokens left to compute, reuse already taken off; at least 1
  int position = 0;      // where they start
  double waited_ms = 0;  // since submitted
  uint64_t order = 0;    // arrival number
};

struct PolicyShare {
  PrefillOrder order = PrefillOrder::kFifo;
  double ageing_tokens_per_ms = 0;
  double service = 0;  // virtual time: tokens computed so far / weight
};

struct PlanInput {
  StepShape decode;  // what the running streams bring
  std::vector<PrefillCandidate> candidates;
  std::vector<PolicyShare> policies;
  int free_slots = 0;
  int max_rows = 512;  // of the step, decode rows included
  // Progress guaranteed while streams run, and the least that a prompt is cut to: backends compute few rows of a
  // sequence at several times the price of many (llama.cpp's tiled attention wants 64).
  int min_prefill_tokens = 64;
  int idle_prefill_tokens = 256;  // allowance when no stream runs
  Duration step_target{};         // zero: decode prediction × step_stretch
  double step_stretch = 2.0;
};

struct PrefillChunk {
  int id = 0;
  int tokens = 0;
};

struct StepPlan {
  std::vector<PrefillChunk> prefill;  // in the order chosen
  std::vector<double> service;        // PolicyShare::service after this step
  int allowance = 0;                  // prefill tokens the budget allowed (for the metric)
};

StepPlan PlanStep(const PlanInput& input, const StepCost& cost);

}  // namespace sluice::engine
