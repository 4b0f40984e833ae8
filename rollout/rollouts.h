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
// What protects (Guard) never waits for the store, so that a store that hangs delays no rollback.
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
    // Puts what is to be served into use. Called from Guard, Tick and Obey, when it changes. Must not call back.
    std::function<void(const std::string& flag, const Serving& serving)> serve;
    // From Guard: something outside says that the canary is broken here ("ttft breaker open for 10 s"); empty: nothing.
    std::function<std::string(const std::string& flag)> broken;
    std::function<double()> rss_bytes;  // of the process; 0: unknown
    // After each change of a state, by whichever replica made it. Must not call back.
    std::function<void(const std::string& flag, const Transition& transition)> told;
    std::function<void()> wake;  // the store has news: Tick soon. From any thread; must not block.
  };
  explicit Rollouts(Parts parts);
  ~Rollouts();

  // Takes over these, whole. A rollout that is no longer named is no longer served; its state stays in the store.
  void Configure(std::vector<RolloutSpec> specs, Duration window) ABSL_LOCKS_EXCLUDED(local_, mu_);

  // What this replica does alone: ends windows, trips what must, serves what it knows. Never blocks. Call it often.
  void Guard() ABSL_LOCKS_EXCLUDED(local_, mu_);
  // Everything that time brings: Guard, then what needs the store. Call it often, and after `wake`.
  void Tick() ABSL_LOCKS_EXCLUDED(local_, mu_);

  // An operator's word, as rollout_machine.h's Obey. Also NOT_FOUND (ROLLOUT_NOT_FOUND); a promotion by a replica that
  // does not lead: NOT_LEADER, naming who does; UNAVAILABLE (STATE_NOT_KEPT). A rollback is in force here at once, even
  // when the store is out of reach.
  absl::StatusOr<RolloutState> Obey(const std::string& flag, Order order, const std::string& who,
                                    const std::string& why, std::optional<uint64_t> expected_epoch, bool force)
      ABSL_LOCKS_EXCLUDED(local_, mu_);

  // As of the last Guard or Tick.
  Report Describe() const ABSL_LOCKS_EXCLUDED(mu_);
  // What the store keeps about a flag's past, as MakeEvidence's documents, the newest first. Waits for the store.
  absl::StatusOr<std::vector<std::string>> EvidenceOf(const std::string& flag) const;

 private:
  struct OfFlag {
    OfFlag(RolloutSpec spec, ArmRecorder& recorder) : replica(spec, recorder), leader(spec.analysis) {}
    // Under local_. The spec is changed by Configure alone.
    FlagReplica replica;
    uint64_t revision = 0;  // of the state that it absorbed last
    Serving served;
    bool mixed = true;             // what is served changed in the running window
    std::optional<Trip> own_trip;  // of this replica, until the store has it
    uint64_t own_trip_attempt = 0;
    std::string own_trip_why;
    Judgement judged;  // the leader's, and what it saw
    Observation seen;
    // Of Tick's thread.
    FlagLeader leader;
    std::optional<uint64_t> told_epoch;  // nullopt: what was before this process is not told again
    bool restored = false;               // the leader has read what another one left
    EvidenceSeries series;
  };
  struct Decoded {
    uint64_t revision = 0;
    absl::StatusOr<ReplicaRecord> record;
  };

  struct Round {  // what the leader knows in one Tick
    std::vector<ReplicaRecord> records;
    state::Fence fence;
    Duration window;
    WallTime now;
  };

  void Follow(const absl::StatusOr<state::Changes>& changes) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<OfFlag*> Flags() ABSL_LOCKS_EXCLUDED(local_);  // for Tick's thread; until Configure
  std::optional<state::Entry> Find(const std::string& key) const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<ReplicaRecord> Records() ABSL_LOCKS_EXCLUDED(mu_);
  void Absorb(OfFlag& of) ABSL_EXCLUSIVE_LOCKS_REQUIRED(local_) ABSL_LOCKS_EXCLUDED(mu_);
  void AbsorbAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(local_);
  void CloseWindows(WallTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(local_);
  void TripWhatMust(WallTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(local_);
  void Serve() ABSL_EXCLUSIVE_LOCKS_REQUIRED(local_);
  void Summarize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(local_) ABSL_LOCKS_EXCLUDED(mu_);
  void Tell(OfFlag& of) ABSL_LOCKS_EXCLUDED(local_);
  void PublishTrips() ABSL_LOCKS_EXCLUDED(local_);
  absl::Status Publish() ABSL_LOCKS_EXCLUDED(local_, mu_);
  void NoteAnswer(const absl::Status& status, MonoTime asked) ABSL_LOCKS_EXCLUDED(mu_);
  RolloutState StateOf(const OfFlag& of) const ABSL_LOCKS_EXCLUDED(local_);
  void LeadFlag(OfFlag& of, const Round& round) ABSL_LOCKS_EXCLUDED(local_, mu_);
  void Weigh(OfFlag& of, const Round& round) ABSL_LOCKS_EXCLUDED(local_, mu_);
  Observation Observe(const OfFlag& of, const std::vector<ReplicaRecord>& records, const RolloutState& state) const
      ABSL_LOCKS_EXCLUDED(local_, mu_);
  // Puts `next` where the store still has the state of `revision`.
  absl::Status Keep(OfFlag& of, uint64_t revision, const RolloutState& next, const state::PutOptions& options)
      ABSL_LOCKS_EXCLUDED(local_, mu_);
  void KeepEvidence(OfFlag& of, const RolloutState& before, const RolloutState& next,
                    const std::vector<ReplicaRecord>& records) ABSL_LOCKS_EXCLUDED(local_);
  Duration LostFor() const ABSL_LOCKS_EXCLUDED(mu_);

  const Parts parts_;
  std::map<std::string, Decoded> decoded_;  // of each replica, as last read; Tick's thread

  mutable Mutex local_ ABSL_ACQUIRED_BEFORE(mu_);  // never held over a call of the store
  WindowClock window_clock_ ABSL_GUARDED_BY(local_);
  Duration window_ ABSL_GUARDED_BY(local_) = std::chrono::seconds(10);
  int64_t index_ ABSL_GUARDED_BY(local_) = 0;                                     // of the running window
  std::map<std::string, std::unique_ptr<OfFlag>> flags_ ABSL_GUARDED_BY(local_);  // changed by Configure alone
  bool publish_now_ ABSL_GUARDED_BY(local_) = true;

  mutable Mutex mu_;  // a leaf
  std::map<std::string, state::Entry> mirror_ ABSL_GUARDED_BY(mu_);
  std::string store_error_ ABSL_GUARDED_BY(mu_);                  // of the watch
  MonoTime lost_since_ ABSL_GUARDED_BY(mu_);                      // with it
  std::optional<MonoTime> silent_since_ ABSL_GUARDED_BY(mu_);     // no call was answered
  std::shared_ptr<state::Session> session_ ABSL_GUARDED_BY(mu_);  // of the replica's record; changed by Tick's thread
  Report report_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<state::Subscription> subscription_;  // last: its callback uses the others
};

}  // namespace sluice::rollout
