// One rollout, seen by the leader: weighs what all replicas published. Decides, does nothing.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "rollout/analysis/analysis.h"
#include "rollout/records.h"
#include "rollout/rollout_machine.h"
#include "rollout/rollout_state.h"

namespace sluice::rollout {

// Thread-safety: thread-compatible.
class FlagLeader {
 public:
  // Windows wait so long for those of slower replicas.
  static constexpr int64_t kLag = 1;
  // Replicas are missed for so many windows; then they are taken for gone.
  static constexpr int64_t kMissed = 6;
  // A replica whose clock is further off is not counted, and nothing is promoted meanwhile. A record that is old may
  // have been late on its way as well.
  static constexpr int64_t kMaxClockOffset = 2;  // windows
  static constexpr Duration kLate = std::chrono::seconds(5);

  explicit FlagLeader(AnalysisOptions options);

  // Weighs every window that ended more than kLag windows before `now` and was not weighed before. `records`: what the
  // store holds now, of all replicas. True: something was weighed.
  bool Weigh(const std::vector<ReplicaRecord>& records, const RolloutState& state, Duration length, WallTime now);

  // For Advance, after Weigh.
  Observation Observe(const std::vector<ReplicaRecord>& records, const RolloutState& state) const;

  Judgement Judge() const { return analysis_.Judge(); }
  const std::string& hold() const { return hold_; }

  // So that another leader goes on with the same evidence. DATA_LOSS: not what Encode made.
  std::string Encode() const;
  absl::Status Restore(std::string_view text);

 private:
  void Begin(const RolloutState& state);
  std::string Missing(int64_t index) const;

  const AnalysisOptions options_;
  Analysis analysis_;
  std::string attempt_;       // that the evidence is of
  uint64_t stage_epoch_ = 0;  // at which its stage began
  size_t stage_ = 0;
  int64_t weighed_ = 0;                               // the newest index
  int64_t begun_ = 0;                                 // the first one
  uint64_t canary_events_ = 0, baseline_events_ = 0;  // in this stage
  std::map<std::string, int64_t> last_seen_;          // replica → newest index of its windows
  std::string hold_;
};

}  // namespace sluice::rollout
