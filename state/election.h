// Who of the processes that share a store leads: whoever put the key, under a session that lives.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "state/state_store.h"

namespace sluice::state {

// Two may believe for a moment that they lead, so what a leader writes is fenced by fence(): the store refuses what the
// older one says.
// Thread-safety: thread-safe, but Tick from one thread at a time.
class Election {
 public:
  // `candidate`: a name for people. Both outlive it. Does nothing before the first Tick.
  Election(StateStore& store, std::string key, std::string candidate, const Clock& clock);
  ~Election();  // gives way at once, if the store can be reached

  // Begins a session if there is none that lives, stands for election, and sees whether it still leads. Waits for the
  // store. An error: neither can be known now; if it led, it does until its session may have ended.
  absl::Status Tick() ABSL_LOCKS_EXCLUDED(mu_);

  // While it leads; nullopt otherwise.
  std::optional<Fence> fence() const ABSL_LOCKS_EXCLUDED(mu_);
  std::string leader() const ABSL_LOCKS_EXCLUDED(mu_);  // as of the last Tick; empty: nobody, or not known
  // For other entries that should live and die with this process; null: there is none that lives. From Tick's thread.
  const Session* session() const;

 private:
  bool Lives() const;

  StateStore& store_;
  const std::string key_, candidate_;
  const Clock& clock_;
  std::unique_ptr<Session> session_;
  mutable Mutex mu_;  // leaf
  std::optional<Fence> fence_ ABSL_GUARDED_BY(mu_);
  MonoTime leads_until_ ABSL_GUARDED_BY(mu_);
  std::string leader_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::state
