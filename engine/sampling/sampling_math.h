// Arithmetic of the sampler that must give the same bits everywhere: libm and std::distributions do not.
// Compiled without contraction into fused multiply-add (see CMakeLists.txt).
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace sluice::engine {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kLargestFloat = std::numeric_limits<float>::max();

// NaN counts as -inf and +inf as the largest float, so that differences of two logits are never NaN.
// Written with selects so that loops over it vectorize.
inline float CleanLogit(float x) {
  const float capped = x < kLargestFloat ? x : kLargestFloat;
  return x > kMinusInfinity ? capped : kMinusInfinity;
}

// e^x for x <= 0 with a relative error below 1e-6; everything under -87 counts as -87. Exp(0) is exactly 1.
inline float ExpNonPositive(float x) {
  x = x > -87.0F ? x : -87.0F;
  const auto n = static_cast<int32_t>(x * 1.44269504F - 0.5F);  // truncation rounds half away, as x <= 0
  const auto scale = static_cast<float>(n);
  const float r = (x - scale * 0.693359375F) + scale * 2.12194440e-4F;  // ln 2 in two parts, |r| <= 0.35
  float p = 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return p * std::bit_cast<float>((n + 127) << 23);
}

// Weights in (0, 1] as integers: sums are exact, so they do not depend on the order of the terms.
// Weights below 2^-40 of the best vanish; 2^23 weights of 1 fit.
inline uint64_t FixedWeight(float weight) {
  return static_cast<uint64_t>(static_cast<int64_t>(weight * 0x1p40F));  // x86-64 converts signed ones only
}

// SplitMix64: Steele, Lea and Flood, OOPSLA 2014. One 64-bit state, any seed is good.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  // Uniform in [0, 1), 53 bits.
  double NextDouble() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

}  // namespace sluice::engine
