// What operators do to flags: overrides and emergency switches, kept in the state store and followed from there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "flags/flag_changes.h"
#include "flags/flag_sources.h"
#include "state/state_store.h"

namespace sluice::services {

// Who changes something, and why; both go to the log and the store.
struct Actor {
  std::string who, why;
};

struct FlagOutcome {
  uint64_t epoch = 0;  // in use now
  std::vector<flags::FlagChange> changes;
  std::vector<std::string> inert;  // set, but a higher layer holds it
  bool kept = true;                // by the state store
};

enum class EmergencySwitch { kKillSwitch, kRollbackToBaseline };

// Keys in the store: "flags/override/<flag>" and "flags/emergency", JSON with who, why and when.
// Thread-safety: thread-safe; blocks for the store's write.
class FlagControl {
 public:
  // All outlive this.
  FlagControl(flags::FlagSources& sources, flags::FlagGate& gate, state::StateStore& store, const Clock& clock);

  // Applies what the store keeps, and from then on what others (another process on the same store) put there.
  // Content that no longer fits is logged and left alone, as when its flag has left the file.
  absl::Status Follow();

  // Replaces the override of one flag; empty values take it back. NOT_FOUND, ABORTED (EPOCH_CHANGED) and
  // INVALID_ARGUMENT as FlagSources::SetValues; UNAVAILABLE (STATE_NOT_KEPT): the store refused, so nothing changed.
  absl::StatusOr<FlagOutcome> Set(const std::string& flag, flags::FlagValues values, const Actor& actor,
                                  std::optional<uint64_t> expected_epoch);

  // In force even when the store refuses (`kept` is then false): safety first.
  absl::StatusOr<FlagOutcome> SetEmergency(EmergencySwitch which, bool on, const Actor& actor);

 private:
  void Reload(const std::string& cause) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Keep(const std::string& key, const std::string& value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  flags::FlagSources& sources_;
  flags::FlagGate& gate_;
  state::StateStore& store_;
  const Clock& clock_;
  Mutex mu_;  // one change at a time
  state::StateStore::Subscription subscription_;
};

}  // namespace sluice::services
