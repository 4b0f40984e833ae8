// A Window as text, for the state store.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "rollout/analysis/window.h"

namespace sluice::rollout {

inline constexpr size_t kMaxWindowBytes = 256 << 10;

// Words between spaces: numbers, and sketches as zeros, sum, min, max, then index:count of each bucket.
std::string Encode(const Window& window);

// INVALID_ARGUMENT, saying where: not what Encode made, a number that is not finite, more failures than events, more
// than kMaxWindowBytes.
absl::StatusOr<Window> DecodeWindow(std::string_view text);

}  // namespace sluice::rollout
