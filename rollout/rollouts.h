// The rollouts of this process: follows the state store, serves what was decided, publishes what it saw, lowers at
// once, and, while it leads, raises. See rollout_state.h for the phases and replica views, README.md for the whole.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "rollout/arm_recorder.h"
#include "rollout/evidence.h"
#include "rollout/flag_leader.h"
#include "rollout/flag_replica.h"
#include "rollout/records.h"
#include "rollout/rollout_machine.h"
#include "rollout/rollout_spec.h"
#include "rollout/window_clock.h"
#include "state/election.h"
#include "state/state_store.h"

namespace sluice::rollout {

// Everything about one rollout, for people. Values.
struct RolloutReport {
  RolloutSpec spec;
  RolloutState state;
  Serving serving;
  bool tripped = false;
  Judgement judgement;  // of all replicas, by the leader; of this replica alone on the others
  Observation seen;     // the leader's
};
struct Report {
  std::string replica, leader;  // leader: empty when there is none
  bool leads = false;
  std::string store_error;  // why the store cannot be read now; empty: it can
  Duration stale_for{};
  std::vector<std::string> replicas;  // that report
  std::vector<RolloutReport> rollouts;
};

// Thread-safety: Tick, Configure and Obey from one thread at a time (they may wait for the store); the rest from any.
class Rollouts {
 public:
  struct Parts {
    state::StateStore& store;
    state::Election& election;
    const Clock& clock;
    std::string replica;
    Duration session_ttl = std::chrono::seconds(10);  // of what this replica reports
    // Where requests of a flag are counted; null: the flag cannot be rolled out.
    std::function<ArmRecorder*(std::string_view flag)> recorder;
    // Puts what is to be served into use. Called from Tick and Obey, when it changes.
    std::function<void(const std::string& flag, const Serving& serving)> serve;
    // Something outside says that the canary is broken here ("ttft breaker open for 10 s"); empty: nothing.
    std::function<std::string(const std::string& flag)> broken;
    std::function<double()> rss_bytes;  // of the process; 0: unknown
    // After each change of a state, by whichever replica made it. Must not call back.
    std::function<void(const std::string& flag, const Transition& transition)> told;
    std::function<void()> wake;  // the store has news: Tick soon. From any thread; must not block.
  };
  explicit Rollouts(Parts parts);
  ~Rollouts();

  // Takes over these, whole. A rollout that is no longer named is no longer served; its state stays in the store.
  void Configure(std::vector<RolloutSpec> specs, Duration window);

  // Everything that time brings. Call it often, and after `wake`.
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);

  // An operator's word, as rollout_machine.h's Obey. Also NOT_FOUND (ROLLOUT_NOT_FOUND); a promotion by a replica that
  // does not lead: NOT_LEADER, naming who does; UNAVAILABLE (STATE_NOT_KEPT). A rollback is in force here at once, even
  // when the store is out of reach.
  absl::StatusOr<RolloutState> Obey(const std::string& flag, Order order, const std::string& who,
                                    const std::string& why, std::optional<uint64_t> expected_epoch, bool force)
      ABSL_LOCKS_EXCLUDED(mu_);

  // As of the last Tick.
  Report Describe() const ABSL_LOCKS_EXCLUDED(mu_);
  // What the store keeps about a flag's past, as MakeEvidence's documents, the newest first. Waits for the store.
  absl::StatusOr<std::vector<std::string>> EvidenceOf(const std::string& flag) const;

 private:
  struct OfFlag {
    OfFlag(RolloutSpec spec, ArmRecorder& recorder) : replica(spec, recorder), leader(spec.analysis) {}
    FlagReplica replica;
    FlagLeader leader;
    Serving served;
    bool mixed = true;             // what is served changed in the running window
    std::optional<Trip> own_trip;  // of this replica, until the store has it
    uint64_t own_trip_attempt = 0;
    std::string own_trip_why;
    uint64_t told_epoch = 0;
    bool restored = false;  // the leader has read what another one left
    Observation seen;
    EvidenceSeries series;
  };
  using Mirror = std::map<std::string, state::Entry>;
  struct Decoded {
    uint64_t revision = 0;
    absl::StatusOr<ReplicaRecord> record;
  };

  void Follow(const absl::StatusOr<state::Changes>& changes) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<ReplicaRecord> Records(const Mirror& mirror);
  void Absorb(OfFlag& of, const Mirror& mirror);
  void CloseWindows(WallTime now);
  void TripWhatMust(WallTime now);
  void Serve();
  void Publish(WallTime now);
  void LeadFlag(OfFlag& of, const std::vector<ReplicaRecord>& records, const state::Fence& fence, WallTime now)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Puts `next` where the store still has the state of `revision`.
  absl::Status Keep(OfFlag& of, uint64_t revision, const RolloutState& next, const state::PutOptions& options)
      ABSL_LOCKS_EXCLUDED(mu_);
  void KeepEvidence(OfFlag& of, const RolloutState& before, const RolloutState& next,
                    const std::vector<ReplicaRecord>& records);
  void Summarize() ABSL_LOCKS_EXCLUDED(mu_);
  Duration LostFor() const ABSL_LOCKS_EXCLUDED(mu_);

  const Parts parts_;
  WindowClock window_clock_;
  Duration window_ = std::chrono::seconds(10);
  int64_t index_ = 0;  // of the running window
  std::map<std::string, std::unique_ptr<OfFlag>> flags_;
  std::map<std::string, Decoded> decoded_;   // of each replica, as last read
  std::unique_ptr<state::Session> session_;  // of the replica's record
  bool publish_now_ = true;

  mutable Mutex mu_;
  Mirror mirror_ ABSL_GUARDED_BY(mu_);
  std::string store_error_ ABSL_GUARDED_BY(mu_);
  MonoTime lost_since_ ABSL_GUARDED_BY(mu_);
  Report report_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<state::Subscription> subscription_;  // last: its callback uses the others
};

}  // namespace sluice::rollout
