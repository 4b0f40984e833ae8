#include "base/clock.h"

namespace sluice {

MonoTime SystemClock::Now() const { return std::chrono::steady_clock::now(); }

WallTime SystemClock::WallNow() const { return std::chrono::system_clock::now(); }

MonoTime SaturatingAdd(MonoTime now, Duration d) {
  if (d > Duration::zero() && now > kInfiniteFuture - d) return kInfiniteFuture;
  return now + d;
}

}  // namespace sluice
