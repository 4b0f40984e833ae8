// MurmurHash3_x86_32 (Austin Appleby's public-domain description): what flagd's `fractional` hashes with.
#pragma once

#include <cstdint>
#include <string_view>

namespace sluice::flags::flagd {

// Pure, the same on every platform. Not for security: keys that collide are easy to find.
uint32_t Murmur3X86_32(std::string_view bytes, uint32_t seed = 0);

}  // namespace sluice::flags::flagd
