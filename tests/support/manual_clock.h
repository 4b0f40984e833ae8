// Time that moves only when a test says so.
#pragma once

#include "base/clock.h"
#include "base/mutex.h"

namespace sluice::test {

// Thread-safe.
class ManualClock final : public Clock {
 public:
  MonoTime Now() const override {
    MutexLock lock(mu_);
    return now_;
  }
  WallTime WallNow() const override {
    MutexLock lock(mu_);
    return WallTime(std::chrono::hours(24 * 365 * 50)) + now_.time_since_epoch();
  }
  void Advance(Duration d) {
    MutexLock lock(mu_);
    now_ += d;
  }

 private:
  mutable Mutex mu_;
  MonoTime now_ ABSL_GUARDED_BY(mu_){std::chrono::seconds(1000)};
};

}  // namespace sluice::test
