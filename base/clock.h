// Time for Sluice: one monotonic clock for intervals, one wall clock for people.
// Code never reads a clock directly; it takes a `Clock&`, so tests move time by hand (ManualClock in
// tests/support). Durations are signed 64-bit nanoseconds; `_ms` appears only in config, metrics and protos.
#pragma once

#include <chrono>
#include <cstdint>

namespace sluice {

using Duration = std::chrono::nanoseconds;
// A point on the monotonic clock. Never compare it with wall time or send it over the wire.
using MonoTime = std::chrono::time_point<std::chrono::steady_clock, Duration>;
using WallTime = std::chrono::time_point<std::chrono::system_clock, Duration>;

inline constexpr MonoTime kInfiniteFuture = MonoTime::max();

// Thread-safety: implementations are thread-safe and never block.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonoTime Now() const = 0;
  virtual WallTime WallNow() const = 0;
};

// The process's real clocks (CLOCK_MONOTONIC, CLOCK_REALTIME).
class SystemClock final : public Clock {
 public:
  MonoTime Now() const override;
  WallTime WallNow() const override;
};

// now + d, clamped to kInfiniteFuture instead of overflowing.
MonoTime SaturatingAdd(MonoTime now, Duration d);

inline double ToMillis(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }
inline double ToSeconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline Duration FromMillis(double ms) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(ms));
}

}  // namespace sluice
