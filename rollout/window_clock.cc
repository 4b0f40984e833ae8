#include "rollout/window_clock.h"

#include <algorithm>

namespace sluice::rollout {

WindowClock::WindowClock(const Clock& clock) : clock_(clock), seen_(clock.Now()), now_(clock.WallNow()) {}

WallTime WindowClock::Now() {
  constexpr int kSlew = 100;
  const MonoTime mono = clock_.Now();
  const Duration passed = mono - seen_;
  seen_ = mono;
  const Duration behind = clock_.WallNow() - (now_ + passed);
  now_ += passed + std::clamp(behind, -passed / kSlew, passed / kSlew);
  return now_;
}

Duration WindowClock::Offset() const { return clock_.WallNow() - now_; }

}  // namespace sluice::rollout
