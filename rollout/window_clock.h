// The wall clock as rollouts use it: for numbering windows that replicas agree on, and immune to jumps.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace sluice::rollout {

// Follows the wall clock by at most 1 % of the time that passes, so a clock that is set does not end stages, windows
// or cool-downs; a drift is followed. Thread-safety: thread-compatible. `clock` outlives it.
class WindowClock {
 public:
  explicit WindowClock(const Clock& clock);

  WallTime Now();  // never goes back
  // How far the wall clock is from it.
  Duration Offset() const;

 private:
  const Clock& clock_;
  MonoTime seen_;
  WallTime now_;
};

inline int64_t WindowIndex(WallTime now, Duration length) { return now.time_since_epoch() / length; }

}  // namespace sluice::rollout
