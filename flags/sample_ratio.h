// Is the observed share of a split the configured one? A sequential test that may be looked at after every key: the
// e-process of a beta-binomial mixture (Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS
// 2022, arXiv:2011.03567). By Ville's inequality it reaches 1/alpha with probability at most alpha when the share is as
// configured, however often it is looked at. It finds broken hashes, lost decisions and keys chosen to get in.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "base/metrics.h"

namespace sluice::flags {

// ln of the e-value of `in` among `total` independent draws of a share of `share`. 0 < share < 1. Pure.
double LogSampleRatioEValue(uint64_t in, uint64_t total, double share);

// Counts each key once in a window of 16384 keys; a window ends when it is full or at Restart. About one key in five is
// left out at the end of a window, as its place in the table was taken; that does not depend on its side.
// Thread-safety: thread-safe. Observe takes no lock and allocates nothing. A decision that is under way while a window
// ends may count on either side of its end.
class SampleRatio {
 public:
  static constexpr double kAlpha = 0.001;  // of a false alarm, for each window
  static constexpr uint32_t kWindowKeys = 1 << 14;

  // `e_value` as of every 64th key of the window; `alarm` 1 from the first time that it reached 1/kAlpha until Restart.
  SampleRatio(Gauge& e_value, Gauge& alarm);

  // A new percentage: `share` is expected of decisions with this threshold, others do not count; nullopt: none count.
  void Restart(std::optional<double> share, uint32_t threshold);

  // One split decision. `sample`: bits of the key's hash that are independent of its bucket.
  void Observe(bool in, uint32_t sample, uint32_t threshold);

 private:
  static constexpr uint32_t kSlots = 2 * kWindowKeys;

  void EndWindow(uint8_t window);

  Gauge& e_value_;
  Gauge& alarm_;
  std::atomic<double> share_{0};  // 0: nothing counts
  std::atomic<uint32_t> threshold_{0};
  std::atomic<uint8_t> window_{1};   // 1..255; a slot that holds it was counted
  std::atomic<uint64_t> counts_{0};  // keys in the high half, those that are in in the low half
  std::array<std::atomic<uint8_t>, kSlots> slots_{};
};

}  // namespace sluice::flags
