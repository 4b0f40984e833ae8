// Versions and ranges of versions: https://semver.org/spec/v2.0.0.html, strictly (no "v1", no "1.2").
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::flags {

struct Version {
  std::array<uint64_t, 3> core{};  // major, minor, patch
  std::string_view pre_release;    // "rc.1"; empty: a release. Points into the parsed text. Build metadata is dropped.
};

// nullopt: not a version. Pure, no allocation.
std::optional<Version> ParseVersion(std::string_view text);

// Precedence of §11: a pre-release comes before its release; numeric identifiers before others, by their number.
std::strong_ordering ComparePrecedence(const Version& a, const Version& b);

// One or more comparators with a space between, all of which must hold: ">=1.2.0 <2.0.0", "^1.2.3", "~1.2.3",
// "!=1.4.0",
// "=1.0.0", "1.0.0". `^` keeps the left-most part that is not 0, `~` keeps major and minor (npm's meaning); their upper
// ends leave out that version's pre-releases as well. Thread-safety: immutable.
class VersionRange {
 public:
  static std::optional<VersionRange> Parse(std::string_view text);
  bool Contains(const Version& version) const;

 private:
  enum class Operator { kLess, kLessOrEqual, kEqual, kNotEqual, kGreaterOrEqual, kGreater };
  struct Comparator {
    Operator op;
    std::array<uint64_t, 3> core;
    std::string pre_release;
  };
  bool Add(std::string_view comparator);

  std::vector<Comparator> comparators_;
};

}  // namespace sluice::flags
