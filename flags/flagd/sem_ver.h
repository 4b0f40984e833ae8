// Semantic versions (semver.org 2.0.0) as flagd compares them: a leading v and missing minor or patch are fine.
#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace sluice::flags::flagd {

// Views into the text it was read from.
struct SemVer {
  std::array<std::string_view, 3> numbers;  // digits without leading zeros, of any length
  std::string_view prerelease;              // without the dash; empty: a release
};

// "1", "1.2", "v1.2.3-rc.1+build"; nothing when it is no version. A pre-release or build needs all three numbers.
std::optional<SemVer> ParseSemVer(std::string_view text);

// -1, 0, 1. Build metadata does not count; a pre-release comes before its release.
int Compare(const SemVer& a, const SemVer& b);

// `op` is =, !=, <, <=, >, >=, ^ (same major) or ~ (same major and minor); nothing for another one or for no version.
std::optional<bool> SemVerMatches(std::string_view version, std::string_view op, std::string_view target);

}  // namespace sluice::flags::flagd
