#include "qos/policy_bucket.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sluice::qos {
namespace {

uint64_t Finalize(uint64_t h) {
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdULL;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return h ^ (h >> 33);
}

}  // namespace

uint64_t StableHash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return Finalize(hash);
}

uint32_t PolicyBucket(uint64_t policy_hash, uint64_t key_hash) {
  // Rotated, so that a key that is spelt like the policy does not cancel it out.
  const uint64_t high = Finalize(key_hash ^ std::rotl(policy_hash, 1)) >> 32;
  return static_cast<uint32_t>(high * kPolicyBuckets >> 32);  // Lemire's reduction: no division
}

uint32_t PolicyThreshold(double percent) {
  return static_cast<uint32_t>(std::lround(std::clamp(percent, 0.0, 100.0) * (kPolicyBuckets / 100)));
}

}  // namespace sluice::qos
