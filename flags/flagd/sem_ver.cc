#include "flags/flagd/sem_ver.h"

#include <algorithm>

namespace sluice::flags::flagd {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsIdentifier(char c) { return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-'; }
bool AllDigits(std::string_view s) { return std::all_of(s.begin(), s.end(), IsDigit); }

// Takes what stands before `end` (or everything) off the front of `text`.
std::string_view TakeUntil(std::string_view& text, std::string_view ends) {
  const size_t at = std::min(text.find_first_of(ends), text.size());
  const std::string_view head = text.substr(0, at);
  text.remove_prefix(at);
  return head;
}

bool IsNumber(std::string_view s) { return !s.empty() && AllDigits(s) && (s.size() == 1 || s[0] != '0'); }

// Dot-separated, none empty; numeric ones of a pre-release without leading zeros.
bool AreIdentifiers(std::string_view list, bool prerelease) {
  while (true) {
    const std::string_view part = TakeUntil(list, ".");
    if (part.empty() || !std::all_of(part.begin(), part.end(), IsIdentifier)) return false;
    if (prerelease && AllDigits(part) && !IsNumber(part)) return false;
    if (list.empty()) return true;
    list.remove_prefix(1);
  }
}

int Sign(int x) { return (x > 0) - (x < 0); }

int CompareNumbers(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return Sign(a.compare(b));
}

int ComparePrereleases(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return int{a.empty()} - int{b.empty()};
  while (!a.empty() && !b.empty()) {
    const std::string_view x = TakeUntil(a, "."), y = TakeUntil(b, ".");
    const bool x_number = AllDigits(x), y_number = AllDigits(y);
    if (x_number != y_number) return x_number ? -1 : 1;
    if (const int c = x_number ? CompareNumbers(x, y) : Sign(x.compare(y)); c != 0) return c;
    if (!a.empty()) a.remove_prefix(1);
    if (!b.empty()) b.remove_prefix(1);
  }
  return int{b.empty()} - int{a.empty()};
}

}  // namespace

std::optional<SemVer> ParseSemVer(std::string_view text) {
  if (!text.empty() && (text[0] == 'v' || text[0] == 'V')) text.remove_prefix(1);
  SemVer version{.numbers = {"0", "0", "0"}};
  for (size_t i = 0; i < version.numbers.size(); ++i) {
    const std::string_view number = TakeUntil(text, i < 2 ? "." : "-+");
    if (!IsNumber(number)) return std::nullopt;
    version.numbers[i] = number;
    if (text.empty()) return version;
    if (i < 2) text.remove_prefix(1);
  }
  if (text[0] == '-') {
    text.remove_prefix(1);
    version.prerelease = TakeUntil(text, "+");
    if (!AreIdentifiers(version.prerelease, /*prerelease=*/true)) return std::nullopt;
  }
  if (!text.empty() && !AreIdentifiers(text.substr(1), /*prerelease=*/false)) return std::nullopt;
  return version;
}

int Compare(const SemVer& a, const SemVer& b) {
  for (size_t i = 0; i < a.numbers.size(); ++i) {
    if (const int c = CompareNumbers(a.numbers[i], b.numbers[i]); c != 0) return c;
  }
  return ComparePrereleases(a.prerelease, b.prerelease);
}

std::optional<bool> SemVerMatches(std::string_view version, std::string_view op, std::string_view target) {
  const std::optional<SemVer> a = ParseSemVer(version), b = ParseSemVer(target);
  if (!a.has_value() || !b.has_value()) return std::nullopt;
  const int order = Compare(*a, *b);
  if (op == "=") return order == 0;
  if (op == "!=") return order != 0;
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  if (op == ">=") return order >= 0;
  const bool same_major = a->numbers[0] == b->numbers[0];
  if (op == "^") return same_major;
  if (op == "~") return same_major && a->numbers[1] == b->numbers[1];
  return std::nullopt;
}

}  // namespace sluice::flags::flagd
