#include "services/grpc/flag_events.h"

#include <fmt/format.h>
#include <grpcpp/alarm.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "base/status.h"

namespace sluice::services {

// Rings again and again. A due alarm's callback holds the state, so that the owner may go before it.
struct FlagEvents::Timer {
  struct State {
    Duration interval;
    std::function<void()> ring;
    Mutex mu;  // held while it rings: ~Timer waits for that
    bool stopped ABSL_GUARDED_BY(mu) = false;
    std::unique_ptr<grpc::Alarm> alarm ABSL_GUARDED_BY(mu);
  };

  Timer(Duration interval, std::function<void()> ring)
      : state(new State{.interval = interval, .ring = std::move(ring)}) {
    MutexLock lock(state->mu);
    Arm(state);
  }
  ~Timer() {
    MutexLock lock(state->mu);
    state->stopped = true;
    state->alarm->Cancel();
  }

  static void Arm(const std::shared_ptr<State>& state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mu) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(state->interval).count();
    state->alarm = std::make_unique<grpc::Alarm>();
    // A time span, so that no clock is read here; gRPC counts it from now.
    state->alarm->Set(gpr_time_from_millis(ms, GPR_TIMESPAN), [state](bool) {
      MutexLock lock(state->mu);
      if (state->stopped) {
        state->alarm.reset();  // it holds this callback, which holds the state
        return;
      }
      state->ring();
      Arm(state);
    });
  }

  const std::shared_ptr<State> state;
};

FlagEvents::FlagEvents(flags::FlagGate& gate, int max_streams, Duration keep_alive) : max_streams_(max_streams) {
  if (keep_alive > Duration::zero()) {
    timer_ = std::make_unique<Timer>(keep_alive, [this] { Broadcast({.keep_alive = true}); });
  }
  subscription_ = gate.OnChange(
      [this](const auto& before, const auto& after) {
        FlagChanges changes = CompareFlags(*before, *after);
        if (!changes.empty()) Broadcast({.changes = std::move(changes)});
      },
      [this](const auto& set, const auto& changes) { Broadcast({.changes = ScheduledFlags(*set, changes)}); });
}

FlagEvents::~FlagEvents() = default;

absl::Status FlagEvents::Add(std::shared_ptr<Listener> listener) {
  MutexLock lock(mu_);
  if (shut_down_) {
    return MakeError(Reason::kDraining, "the server is draining", {.retry_after = std::chrono::seconds(1)});
  }
  if (static_cast<int>(listeners_.size()) >= max_streams_) {
    return MakeError(Reason::kTooManyEventStreams,
                     fmt::format("{} event streams are open, and no more are allowed", max_streams_),
                     {.retry_after = std::chrono::seconds(5)});
  }
  listeners_.insert(std::move(listener));
  return absl::OkStatus();
}

void FlagEvents::Remove(const Listener& listener) {
  std::shared_ptr<Listener> last_use;  // ends after the lock
  MutexLock lock(mu_);
  const auto it =
      std::find_if(listeners_.begin(), listeners_.end(), [&](const auto& l) { return l.get() == &listener; });
  if (it == listeners_.end()) return;
  last_use = *it;
  listeners_.erase(it);
}

void FlagEvents::Shutdown() {
  {
    MutexLock lock(mu_);
    shut_down_ = true;
  }
  Broadcast({.shutdown = true});
}

void FlagEvents::Broadcast(const FlagNews& news) {
  std::vector<std::shared_ptr<Listener>> listeners;
  {
    MutexLock lock(mu_);
    listeners.assign(listeners_.begin(), listeners_.end());
  }
  for (const auto& listener : listeners) listener->Notify(news);
}

}  // namespace sluice::services
