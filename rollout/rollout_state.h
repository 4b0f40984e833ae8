// Where a rollout stands: one value that all replicas agree on, kept in the state store under compare-and-set.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice::rollout {

// | phase        | serves              | leaves it                                                                |
// |--------------|---------------------|--------------------------------------------------------------------------|
// | pending      | 0 %                 | cool-down over and a leader there → promoting to stage 0                  |
// | promoting    | the new stage       | every replica that reports serves it → running                           |
// | running      | the stage           | dwell over: pass → promoting, complete or holding; else → inconclusive    |
// | inconclusive | the stage           | pass → as running; evidence is still being gathered                      |
// | holding      | the stage           | somebody promotes, or what is held for ends → running                    |
// | paused       | the stage           | an operator starts it again → running; nothing raises it meanwhile       |
// | complete     | 100 % less hold-back| stays; is still watched                                                  |
// | rolled_back  | 0 %, or on its way  | a new attempt → pending                                                  |
// Every phase but pending and rolled_back leaves for rolled_back when the verdict is fail, a replica trips, or an
// operator says so.
enum class Phase { kPending, kRunning, kInconclusive, kHolding, kPromoting, kPaused, kComplete, kRolledBack };
inline constexpr int kPhases = 8;
std::string_view PhaseName(Phase phase);  // "pending", ..., "rolled_back"
std::optional<Phase> ParsePhase(std::string_view name);

struct Transition {
  WallTime when{};
  Phase from = Phase::kPending, to = Phase::kPending;
  uint32_t bps = 0;  // served from now on
  uint64_t epoch = 0;
  std::string cause;  // "error_rate: ratio 4.1 (e-value 2300)", "alice: looks good"

  bool operator==(const Transition&) const = default;
};

struct RolloutState {
  std::string flag;
  uint64_t epoch = 0;    // +1 with every change; 0: there was never an attempt
  uint64_t attempt = 0;  // counts from 1
  Phase phase = Phase::kRolledBack;
  size_t stage = 0;
  uint32_t bps = 0;  // what replicas serve
  int retries = 0;   // attempts that began by themselves since the last one that somebody started
  WallTime since{};  // of the phase
  WallTime stage_since{};
  std::string cause;                // of the phase
  std::vector<Transition> history;  // the newest last, at most kMaxHistory

  bool operator==(const RolloutState&) const = default;

  static constexpr size_t kMaxHistory = 64;
  // "ttft_pipeline#3": what telemetry and trips name.
  std::string attempt_id() const;
  bool serves_canary() const { return bps > 0; }
};

// JSON. DATA_LOSS: not what Encode made.
std::string Encode(const RolloutState& state);
absl::StatusOr<RolloutState> DecodeRolloutState(std::string_view text);

// What a replica believes of one rollout. It only ever takes over what is not older, and a trip outlives every epoch of
// its attempt; so whatever order news arrives in, and whatever is lost, no replica serves more than it may:
//   the higher epoch wins whole; at equal epoch the lower percentage; a tripped attempt serves 0 %.
// (A join-semilattice: Merge is associative, commutative and idempotent.) A value.
class ReplicaView {
 public:
  // True: it changed what `bps` says or the state.
  bool Absorb(const RolloutState& state);
  bool Trip(uint64_t attempt);
  void Merge(const ReplicaView& other);

  const RolloutState& state() const { return state_; }
  bool tripped() const { return tripped_.contains(state_.attempt); }
  uint32_t bps() const { return tripped() ? 0 : state_.bps; }

  bool operator==(const ReplicaView&) const = default;

 private:
  RolloutState state_;
  std::set<uint64_t> tripped_;  // attempts not older than the state's
};

}  // namespace sluice::rollout
