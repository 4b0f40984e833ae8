// The generator's one thread: timers and posted work, and how late it was. Its lateness is the generator's own lag.
#pragma once

#include <deque>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace sluice::loadtest {

// Post and At are thread-safe; Run and TakeLags are for the thread that runs the loop.
class EventLoop {
 public:
  explicit EventLoop(const Clock& clock) : clock_(clock) {}

  // Runs `work` on the loop as soon as it can.
  void Post(std::function<void()> work);
  // Runs `work` on the loop at `when` or, if that has passed, as soon as it can. Equal times: in order of calls.
  void At(MonoTime when, std::function<void()> work);
  // Runs until `finished()` (asked after each piece of work) is true. Also ticks every 10 ms, so that lateness is known
  // when no timer is due, and `finished` is asked at least as often.
  void Run(const std::function<bool()>& finished);

  // Drops every timer and all posted work that has not run.
  void Clear();

  // How late timers and ticks were since the last call, in ms, unordered.
  std::vector<double> TakeLags() { return std::exchange(lags_ms_, {}); }

 private:
  struct Timer {
    MonoTime when;
    uint64_t order;
    std::function<void()> work;
    bool operator>(const Timer& o) const { return when != o.when ? when > o.when : order > o.order; }
  };
  void RunDue(MonoTime now);

  const Clock& clock_;
  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_ ABSL_GUARDED_BY(mutex_);
  uint64_t order_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<double> lags_ms_;  // loop thread only
};

}  // namespace sluice::loadtest
