// MD5 (RFC 1321), ours because FIPS builds of OpenSSL have none. For bucketing only, never for security.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sluice::flags {

using Md5Digest = std::array<uint8_t, 16>;

// Thread-safe, allocates nothing. Digest of the concatenation a‖b‖c, without building it.
Md5Digest Md5(std::string_view a, std::string_view b = {}, std::string_view c = {});

}  // namespace sluice::flags
