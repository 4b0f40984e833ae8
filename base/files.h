// Whole small files: configuration, certificates, reports.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace sluice {

inline constexpr uint64_t kMaxTextFileBytes = uint64_t{64} << 20;

// Blocks. NOT_FOUND: no such file; INVALID_ARGUMENT: not a regular file, larger than `max_bytes`, or the system's
// reason; all name the path.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes = kMaxTextFileBytes);

// Replaces the file's content, not atomically. INVALID_ARGUMENT with the path and the system's reason.
absl::Status WriteTextFile(const std::string& path, const std::string& text);

}  // namespace sluice
