// What operators do to flags: overrides and emergency switches, kept in the state store and followed from there.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "flags/flag_changes.h"
#include "flags/flag_sources.h"
#include "nlohmann/json_fwd.hpp"
#include "state/state_store.h"

namespace sluice::services {

// Who changes something, and why; both go to the log and the store.
struct Actor {
  std::string who, why;
};

struct FlagOutcome {
  uint64_t epoch = 0;  // in use now
  std::vector<flags::FlagChange> changes;
  std::vector<std::string> inert;  // Set: what a higher layer holds; SetEmergency: other layers that keep it on
  bool kept = false;               // by the state store; false: a restart forgets it
};

struct EmergencySwitches {
  bool kill_switch = false, rollback_to_baseline = false;
};

// Keys in the store: "flags/override/<flag>" and "flags/emergency", JSON with who, why and when.
// Thread-safety: thread-safe. Changes are made one at a time on a thread of its own, which waits for the store.
class FlagControl {
 public:
  using Done = std::function<void(absl::StatusOr<FlagOutcome>)>;

  // `store` null: nothing is kept. All outlive this. Applies at once what the store keeps, and from then on what others
  // (another process on the same store) put there. Content that does not fit is logged and left alone.
  FlagControl(flags::FlagSources& sources, flags::FlagGate& gate, state::StateStore* store, const Clock& clock);
  // Answers what waits with UNAVAILABLE.
  ~FlagControl();

  // Replaces the override of one flag; empty values take it back. NOT_FOUND, ABORTED (EPOCH_CHANGED) and
  // INVALID_ARGUMENT as FlagSources::SetValues; UNAVAILABLE (STATE_NOT_KEPT): the store refused, so nothing changed;
  // RESOURCE_EXHAUSTED: too many changes wait. `done` is called once, on any thread.
  void Set(const std::string& flag, flags::FlagValues values, const Actor& actor,
           std::optional<uint64_t> expected_epoch, Done done);

  // Changes the given switch of the emergency layer. In force even when the store refuses: safety first.
  void SetEmergency(bool EmergencySwitches::*which, bool on, const Actor& actor, Done done);

 private:
  using Work = std::function<absl::StatusOr<FlagOutcome>()>;
  void Enqueue(Work work, Done done) ABSL_LOCKS_EXCLUDED(mu_);
  void WorkOff() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<FlagOutcome> SetNow(const std::string& flag, const flags::FlagValues& values, const Actor& actor,
                                     std::optional<uint64_t> expected_epoch) ABSL_LOCKS_EXCLUDED(mirror_mu_);
  absl::StatusOr<FlagOutcome> SetEmergencyNow(bool EmergencySwitches::*which, bool on, const Actor& actor);
  void Follow(const absl::StatusOr<state::Changes>& changes) ABSL_LOCKS_EXCLUDED(mirror_mu_);
  // Writes or, with an empty value, deletes.
  absl::Status Keep(const std::string& key, const std::string& value) ABSL_LOCKS_EXCLUDED(mirror_mu_);
  std::string Described(nlohmann::json what, const Actor& actor) const;

  flags::FlagSources& sources_;
  flags::FlagGate& gate_;
  state::StateStore* const store_;
  const Clock& clock_;

  Mutex mirror_mu_;
  std::map<std::string, state::Entry> mirror_ ABSL_GUARDED_BY(mirror_mu_);  // what the store was last seen to hold
  std::unique_ptr<state::Subscription> subscription_;

  Mutex mu_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::pair<Work, Done>> queue_ ABSL_GUARDED_BY(mu_);
  std::thread worker_;  // last: it uses the others
};

}  // namespace sluice::services
