// SHA-256 (FIPS 180-4) by OpenSSL, as 64 lower-case hex digits. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice {

std::string Sha256Hex(std::string_view bytes);

// Blocks; reads in pieces. NOT_FOUND when it cannot be opened, DATA_LOSS when reading fails; both name the path.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

}  // namespace sluice
