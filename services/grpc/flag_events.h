// Tells the EventStreams of flagd's API what happens to the flags.
#pragma once

#include <memory>
#include <set>
#include <string_view>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "flags/flag_gate.h"
#include "services/flag_answers.h"

namespace sluice::services {

// What a stream still has to write, in this order. At most one of each: a slow reader gets changes merged.
struct FlagNews {
  bool ready = false;
  FlagChanges changes;
  bool keep_alive = false;
  bool shutdown = false;  // the last one
};

// Thread-safety: thread-safe.
class FlagEvents {
 public:
  // One open stream. Notify is called without a lock of FlagEvents, from any thread, and must not block.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void Notify(const FlagNews& news) = 0;
  };

  // At most `max_streams` at a time. `gate` outlives this. keep_alive zero: none. Of real time, kept by gRPC's timer.
  FlagEvents(flags::FlagGate& gate, int max_streams, Duration keep_alive);
  // Blocks until a callback that runs has ended. Streams may be open still; they are told nothing more.
  ~FlagEvents();

  // RESOURCE_EXHAUSTED (TOO_MANY_EVENT_STREAMS); UNAVAILABLE (DRAINING) after Shutdown.
  absl::Status Add(std::shared_ptr<Listener> listener) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const Listener& listener) ABSL_LOCKS_EXCLUDED(mu_);

  // Tells every stream provider_shutdown; they end, and no new one begins. Returns at once.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Timer;

  void Broadcast(const FlagNews& news) ABSL_LOCKS_EXCLUDED(mu_);

  const int max_streams_;
  Mutex mu_;
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  std::set<std::shared_ptr<Listener>> listeners_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Timer> timer_;  // null: none
  flags::FlagGate::Subscription subscription_;
};

}  // namespace sluice::services
