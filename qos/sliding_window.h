// The recent past as a ring of slices: old ones fall out whole, so nothing is kept per event.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/clock.h"

namespace sluice::qos {

// `Slice` is a value whose default is "nothing happened", with Merge(const Slice&).
// A value. Thread-safety: thread-compatible. Pure: it reads no clock; `now` and `at` come from one monotonic clock.
// Memory: kSlices slices, whatever happens. What it covers ends at `now` and is between 11/12 and 12/12 of the window.
template <typename Slice>
class SlidingWindow {
 public:
  static constexpr int kSlices = 12;

  // `born`: nothing is known of the time before. Requires: window at least kSlices nanoseconds.
  SlidingWindow(Duration window, MonoTime born) : width_(window / kSlices), born_(born) {}

  // The slice that something at `at` belongs to; null: it is older than the window, as far as the ring can tell.
  Slice* At(MonoTime at) {
    const int64_t index = IndexOf(at);
    Place& place = ring_[static_cast<size_t>(index % kSlices)];
    if (place.index > index) return nullptr;
    if (place.index < index) place = Place{.index = index};
    return &place.slice;
  }

  Slice Total(MonoTime now) const {
    Slice total{};
    const int64_t newest = IndexOf(now);
    for (const Place& place : ring_) {
      if (place.index > newest - kSlices && place.index <= newest) total.Merge(place.slice);
    }
    return total;
  }

  // How much time Total(now) is about.
  Duration Covered(MonoTime now) const {
    const MonoTime oldest{width_ * std::max<int64_t>(0, IndexOf(now) - kSlices + 1)};
    return now - std::max(oldest, born_);
  }

 private:
  struct Place {
    int64_t index = -1;  // of the slice since the epoch of the clock
    Slice slice{};
  };
  int64_t IndexOf(MonoTime at) const { return std::max<int64_t>(0, at.time_since_epoch() / width_); }

  Duration width_;
  MonoTime born_;
  std::array<Place, kSlices> ring_{};
};

}  // namespace sluice::qos
