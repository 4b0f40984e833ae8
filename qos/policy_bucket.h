// Which targeting keys a partly enforced policy acts on: pure, the same on every replica and after every restart.
#pragma once

#include <cstdint>
#include <string_view>

namespace sluice::qos {

// FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv), then MurmurHash3's 64-bit finalizer (Appleby), as FNV alone
// mixes the last characters badly. Request::key_hash and the policy's hash below.
uint64_t StableHash(std::string_view text);

inline constexpr uint32_t kPolicyBuckets = 10'000;  // 0.01 % each

// 0..9999, from StableHash of the policy's id and of the key; of two policies independent of each other. Bias: at most
// 2.4e-6 relative.
uint32_t PolicyBucket(uint64_t policy_hash, uint64_t key_hash);

// A key is acted on when its bucket is below this: raising the percentage only ever adds keys. Rounds to 0.01 %.
uint32_t PolicyThreshold(double percent);

}  // namespace sluice::qos
