// JSON that leaves no doubt: bounded, without duplicate keys, each fault with its place.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace sluice::flags::flagd {

struct JsonLimits {
  size_t max_bytes = 4 << 20;
  int max_depth = 64;  // of nested arrays and objects
};

// INVALID_ARGUMENT naming the first fault: too large, too deep, a duplicate key (with its path), not JSON (with line
// and column), not UTF-8, a number beyond a double.
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text, const JsonLimits& limits = {});

// Paths as in messages: Path("flags", "a") is `flags.a`; keys that are no plain words are quoted: `flags["a.b"]`.
std::string Path(std::string_view parent, std::string_view key);
std::string Path(std::string_view parent, size_t index);

}  // namespace sluice::flags::flagd
