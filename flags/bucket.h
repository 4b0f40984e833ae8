// From targeting key to bucket: pure, deterministic, the same on every replica and in other SDKs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::flags {

inline constexpr uint32_t kBuckets = 10000;

// A share in 0.01 % steps: 0..10000. YAML writes percent with up to two decimals.
using RolloutBps = uint32_t;
std::string PercentText(RolloutBps bps);  // "12.5 %"

// The first four bytes of a digest, big endian (its first eight hex digits), and the next four: independent of each
// other.
struct KeyHash {
  uint32_t first = 0, second = 0;
};

// hash_version 2: MD5("<salt>-<key>"); 1: the ancestor's MD5(key + salt).
KeyHash HashKey(int hash_version, std::string_view salt, std::string_view targeting_key);

// hash_version 2: `first` of the hash mod 10000 (the shards of Eppo's Universal Flag Configuration, so that its SDKs
// agree). Modulo bias: 2.3e-6 relative.
uint32_t BucketV2(std::string_view salt, std::string_view targeting_key);

// hash_version 1, the ancestor's: int(md5_hex(key + salt)[0:8], 16) mod 100.
uint32_t BucketV1(std::string_view salt, std::string_view targeting_key);

}  // namespace sluice::flags
