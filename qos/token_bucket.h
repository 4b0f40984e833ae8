// A token bucket: so much at once, refilled at a steady rate. Source: RFC 2697 (the committed bucket of its marker).
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace sluice::qos {

// Thread-safety: thread-compatible (a value). Pure over `now`, which never goes back.
class TokenBucket {
 public:
  // Starts full. Zero capacity: no limit.
  TokenBucket(double capacity, double per_second, MonoTime now)
      : capacity_(capacity), per_second_(per_second), level_(capacity), at_(now) {}

  bool limited() const { return capacity_ > 0; }
  double capacity() const { return capacity_; }

  double Level(MonoTime now) {
    level_ = std::min(capacity_, level_ + per_second_ * ToSeconds(now - at_));
    at_ = now;
    return level_;
  }
  bool Has(double n, MonoTime now) { return !limited() || Level(now) >= n; }
  // Below zero is possible: what others took already.
  void Take(double n, MonoTime now) { level_ = Level(now) - n; }
  void GiveBack(double n, MonoTime now) { level_ = std::min(capacity_, Level(now) + n); }
  // Time until there is enough; requires n <= capacity.
  Duration WaitFor(double n, MonoTime now) {
    const double missing = n - Level(now);
    return missing <= 0 ? Duration::zero() : FromMillis(1000 * missing / per_second_);
  }
  // What was used stays used.
  void Resize(double capacity, double per_second, MonoTime now) {
    const double used = limited() ? capacity_ - Level(now) : 0;
    capacity_ = capacity;
    per_second_ = per_second;
    level_ = capacity - used;
    at_ = now;
  }

 private:
  double capacity_, per_second_, level_;
  MonoTime at_;
};

}  // namespace sluice::qos
