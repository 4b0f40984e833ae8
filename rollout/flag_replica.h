// One rollout on one replica: what it serves, what it saw, and whether it must go to 0 % at once. Decides, does
// nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/clock.h"
#include "rollout/analysis/analysis.h"
#include "rollout/arm_recorder.h"
#include "rollout/records.h"
#include "rollout/rollout_spec.h"
#include "rollout/rollout_state.h"

namespace sluice::rollout {

// What the flag's layers are to say.
struct Serving {
  bool begun = false;  // false: there was never an attempt; the rollout says nothing
  uint32_t bps = 0;
  bool rolled_back = false;  // 0 % over everything but an emergency: rules and allow lists let nobody in either
  std::string by;            // "rollout ttft_pipeline#3"
  uint64_t epoch = 0;

  bool operator==(const Serving&) const = default;
};

// Thread-safety: thread-compatible; `recorder` outlives it.
class FlagReplica {
 public:
  // Of the spec's alpha the leader takes one half; each replica, judging what it saw alone, a twentieth: ten replicas
  // keep the promise together.
  static constexpr double kShareOfAlpha = 0.05;

  FlagReplica(RolloutSpec spec, ArmRecorder& recorder);

  void SetSpec(RolloutSpec spec);
  const RolloutSpec& spec() const { return spec_; }

  // News from the store, in any order. A new attempt begins with no evidence.
  void Absorb(const RolloutState& state);
  void Learn(uint64_t tripped_attempt) { view_.Trip(tripped_attempt); }

  const ReplicaView& view() const { return view_; }
  // `lost_for`: how long the store has been out of reach.
  Serving ToServe(Duration lost_for) const;

  // Ends the window `index`, in which `served` was served from beginning to end unless it is `mixed`.
  void EndWindow(int64_t index, Duration length, const std::string& replica, const Serving& served, bool mixed,
                 double rss_bytes);

  // Why this replica must take the attempt to 0 % by itself, by what it saw alone; empty: nothing.
  std::string ReasonToTrip() const;
  std::vector<std::string> examples() const { return recorder_.examples(); }
  const std::deque<Window>& windows() const { return windows_; }  // the newest, the oldest first
  const Analysis& analysis() const { return analysis_; }          // of this replica alone

 private:
  RolloutSpec spec_;
  ArmRecorder& recorder_;
  ReplicaView view_;
  Analysis analysis_;
  std::deque<Window> windows_;
};

}  // namespace sluice::rollout
