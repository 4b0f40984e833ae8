// Sums over a sliding window: the last n calls, or the last n seconds. A ring of buckets with a running total, as
// resilience4j's FixedSizeSlidingWindowMetrics and SlidingTimeWindowMetrics keep them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace sluice::qos {

// `Counts`: numbers with += and -=, zero by default. Thread-compatible. Add and Advance cost O(1) amortized and
// allocate nothing.
template <typename Counts>
class CountRing {
 public:
  enum class Unit { kCalls, kSeconds };

  // Requires: size at least 1.
  CountRing(Unit unit, int size) : unit_(unit), buckets_(static_cast<size_t>(size)) {}

  void Add(const Counts& counts, MonoTime now) {
    if (unit_ == Unit::kCalls) {
      Rotate();
    } else {
      Advance(now);
    }
    buckets_[newest_] += counts;
    total_ += counts;
  }

  // Forgets what is too old at `now`. A time before the newest bucket counts into that bucket.
  void Advance(MonoTime now) {
    if (unit_ == Unit::kCalls) return;
    const int64_t second = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
    const int64_t steps = std::min(second - second_, static_cast<int64_t>(buckets_.size()));
    for (int64_t i = 0; i < steps; ++i) Rotate();
    second_ = std::max(second, second_);
  }

  const Counts& total() const { return total_; }
  int size() const { return static_cast<int>(buckets_.size()); }

 private:
  void Rotate() {
    newest_ = (newest_ + 1) % buckets_.size();
    total_ -= buckets_[newest_];
    buckets_[newest_] = Counts{};
  }

  Unit unit_;
  std::vector<Counts> buckets_;
  size_t newest_ = 0;
  int64_t second_ = 0;  // of the newest bucket
  Counts total_{};
};

}  // namespace sluice::qos
