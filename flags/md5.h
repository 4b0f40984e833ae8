// MD5 (RFC 1321), ours because FIPS builds of OpenSSL have none. For bucketing only, never for security.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sluice::flags {

using Md5Digest = std::array<uint8_t, 16>;

// Thread-safe, allocates nothing. Digest of the concatenation a‖b‖c, without building it.
Md5Digest Md5(std::string_view a, std::string_view b = {}, std::string_view c = {});

// The digests of two concatenations. The last blocks of both are worked on side by side, which takes little longer than
// one; that is all there is to do when both are shorter than 56 bytes.
using Md5Parts = std::array<std::string_view, 3>;
std::array<Md5Digest, 2> Md5Pair(const Md5Parts& x, const Md5Parts& y);

}  // namespace sluice::flags
