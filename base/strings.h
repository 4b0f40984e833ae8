// Bridges between std::string_view and Debian abseil's own absl::string_view (a distinct type there, even
// in C++20). Headers of Sluice use std::string_view; these two conversions are for calls into abseil.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/string_view.h"

namespace sluice {

inline absl::string_view ToAbsl(std::string_view s) { return absl::string_view(s.data(), s.size()); }
inline std::string_view ToStd(absl::string_view s) { return std::string_view(s.data(), s.size()); }

// True when `s` is well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
bool IsValidUtf8(std::string_view s);

// Length in bytes of the longest prefix of `s` that does not end inside a UTF-8 character. Malformed bytes
// count as complete (they will never become valid by waiting).
size_t CompleteUtf8Prefix(std::string_view s);

// Replaces each malformed sequence by U+FFFD, so that the result is always valid UTF-8.
std::string ReplaceInvalidUtf8(std::string_view s);

}  // namespace sluice
