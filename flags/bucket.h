// From targeting key to bucket: pure, deterministic, the same on every replica and in other SDKs.
#pragma once

#include <cstdint>
#include <string_view>

namespace sluice::flags {

// hash_version 2: first four bytes, big endian, of MD5("<salt>-<key>"), mod 10000 (the shards of Eppo's Universal
// Flag Configuration, so that its SDKs agree). Modulo bias: 2.3e-6 relative.
uint32_t BucketV2(std::string_view salt, std::string_view targeting_key);

// hash_version 1, the ancestor's: int(md5_hex(key + salt)[0:8], 16) mod 100.
uint32_t BucketV1(std::string_view salt, std::string_view targeting_key);

}  // namespace sluice::flags
