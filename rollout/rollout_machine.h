// How a rollout moves: a pure function of where it stands, what was seen, and the time. Source of the phases:
// rollout_state.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "rollout/analysis/analysis.h"
#include "rollout/rollout_spec.h"
#include "rollout/rollout_state.h"

namespace sluice::rollout {

// What the leader knows when it asks. Nothing that is missing may promote or roll back: silence holds.
struct Observation {
  Verdict verdict = Verdict::kInconclusive;
  std::string cause;              // of the verdict, for people
  std::string hold;               // why evidence is not to be trusted now (telemetry missing, shares off); empty: it is
  std::string trip;               // a replica tripped this attempt, and why; empty: none
  uint64_t canary_events = 0;     // in this stage
  uint64_t baseline_events = 0;   // in this stage
  bool baseline_expected = true;  // false: nobody is left on the baseline, so its events do not count
  bool everybody_follows = true;  // each replica that reports serves the state's epoch
};

// The next state, or nullopt: it stays. Called by the leader only. Takes one step; call it again until it stays.
// Raises only from running, inconclusive or holding by a pass, or from pending; lowers from any phase.
std::optional<RolloutState> Advance(const RolloutSpec& spec, const RolloutState& state, const Observation& seen,
                                    WallTime now);

enum class Order { kStart, kPromote, kHold, kRollback };

// An operator's word. FAILED_PRECONDITION when the phase does not allow it (the message names what does); ABORTED when
// `expected_epoch` is given and is not the state's. `force` starts in spite of the cool-down.
absl::StatusOr<RolloutState> Obey(const RolloutSpec& spec, const RolloutState& state, Order order,
                                  const std::string& who, const std::string& why,
                                  std::optional<uint64_t> expected_epoch, bool force, WallTime now);

}  // namespace sluice::rollout
