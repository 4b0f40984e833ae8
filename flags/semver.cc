#include "flags/semver.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace sluice::flags {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNumeric(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), IsDigit); }
bool IsIdentifier(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
  });
}
bool HasLeadingZero(std::string_view digits) { return digits.size() > 1 && digits[0] == '0'; }

// Cuts off and returns what stands before the first `separator`, which goes too.
std::string_view Take(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  const std::string_view first = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return first;
}

bool AreIdentifiers(std::string_view dotted, bool leading_zeros) {
  if (dotted.empty() || dotted.back() == '.') return false;
  while (!dotted.empty()) {
    const std::string_view one = Take(dotted, '.');
    if (!IsIdentifier(one) || (!leading_zeros && IsNumeric(one) && HasLeadingZero(one))) return false;
  }
  return true;
}

std::strong_ordering CompareIdentifiers(std::string_view a, std::string_view b) {
  const bool a_number = IsNumeric(a), b_number = IsNumeric(b);
  if (a_number != b_number) return a_number ? std::strong_ordering::less : std::strong_ordering::greater;
  if (a_number && a.size() != b.size()) return a.size() <=> b.size();  // no leading zeros: the longer one is larger
  return a.compare(b) <=> 0;
}

}  // namespace

std::optional<Version> ParseVersion(std::string_view text) {
  Version out;
  const size_t plus = text.find('+');
  if (plus != std::string_view::npos && !AreIdentifiers(text.substr(plus + 1), /*leading_zeros=*/true)) {
    return std::nullopt;
  }
  text = text.substr(0, plus);
  const size_t dash = text.find('-');
  if (dash != std::string_view::npos) {
    out.pre_release = text.substr(dash + 1);
    if (!AreIdentifiers(out.pre_release, /*leading_zeros=*/false)) return std::nullopt;
  }
  text = text.substr(0, dash);
  if (std::count(text.begin(), text.end(), '.') != 2) return std::nullopt;
  for (uint64_t& part : out.core) {
    const std::string_view digits = Take(text, '.');
    if (!IsNumeric(digits) || HasLeadingZero(digits)) return std::nullopt;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), part).ec != std::errc()) return std::nullopt;
  }
  return out;
}

std::strong_ordering ComparePrecedence(const Version& a, const Version& b) {
  if (const auto core = a.core <=> b.core; core != 0) return core;
  if (a.pre_release.empty() || b.pre_release.empty()) return a.pre_release.empty() <=> b.pre_release.empty();
  std::string_view rest_a = a.pre_release, rest_b = b.pre_release;
  while (!rest_a.empty() && !rest_b.empty()) {
    if (const auto one = CompareIdentifiers(Take(rest_a, '.'), Take(rest_b, '.')); one != 0) return one;
  }
  return !rest_a.empty() <=> !rest_b.empty();  // a larger set of identifiers wins
}

std::optional<VersionRange> VersionRange::Parse(std::string_view text) {
  VersionRange range;
  while (!text.empty()) {
    if (!range.Add(Take(text, ' '))) return std::nullopt;
  }
  if (range.comparators_.empty()) return std::nullopt;
  return range;
}

bool VersionRange::Add(std::string_view comparator) {
  static constexpr std::pair<std::string_view, Operator> kOperators[] = {
      {"<=", Operator::kLessOrEqual}, {">=", Operator::kGreaterOrEqual}, {"!=", Operator::kNotEqual},
      {"<", Operator::kLess},         {">", Operator::kGreater},         {"=", Operator::kEqual}};
  const char range = comparator.starts_with('^') || comparator.starts_with('~') ? comparator[0] : '\0';
  Operator op = range != '\0' ? Operator::kGreaterOrEqual : Operator::kEqual;
  if (range != '\0') comparator.remove_prefix(1);
  for (const auto& [sign, meaning] : kOperators) {
    if (range != '\0' || !comparator.starts_with(sign)) continue;
    op = meaning;
    comparator.remove_prefix(sign.size());
    break;
  }
  const std::optional<Version> version = ParseVersion(comparator);
  if (!version) return false;
  comparators_.push_back({op, version->core, std::string(version->pre_release)});
  if (range == '\0') return true;
  size_t kept = 1;  // the part that may not change
  if (range == '^') {
    kept = 0;
    while (kept < 2 && version->core[kept] == 0) ++kept;
  }
  std::array<uint64_t, 3> end{};
  std::copy_n(version->core.begin(), kept + 1, end.begin());
  if (++end[kept] == 0) return false;
  comparators_.push_back({Operator::kLess, end, "0"});  // "-0" is the first pre-release of all
  return true;
}

bool VersionRange::Contains(const Version& version) const {
  return std::all_of(comparators_.begin(), comparators_.end(), [&](const Comparator& c) {
    const auto order = ComparePrecedence(version, {.core = c.core, .pre_release = c.pre_release});
    switch (c.op) {
      case Operator::kLess:
        return order < 0;
      case Operator::kLessOrEqual:
        return order <= 0;
      case Operator::kEqual:
        return order == 0;
      case Operator::kNotEqual:
        return order != 0;
      case Operator::kGreaterOrEqual:
        return order >= 0;
      case Operator::kGreater:
        return order > 0;
    }
    return false;
  });
}

}  // namespace sluice::flags
