#include "config/values.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "base/edit_distance.h"
#include "base/strings.h"
#include "flags/rule.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

bool IsDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// Lower case without separators, so that max_models and maxModels are the same.
std::string Folded(std::string_view name) {
  std::string out = Lower(name);
  out.erase(std::remove_if(out.begin(), out.end(), [](char c) { return c == '_' || c == '-' || c == '.'; }), out.end());
  return out;
}

constexpr std::string_view kUnixScheme = "unix:";

struct HostPort {
  std::string_view host, port;
};

std::optional<HostPort> SplitAddress(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  HostPort out{text.substr(0, colon), text.substr(colon + 1)};
  if (out.host.size() >= 2 && out.host.front() == '[' && out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
    in6_addr ignored;
    if (inet_pton(AF_INET6, std::string(out.host).c_str(), &ignored) != 1) return std::nullopt;
    return out;
  }
  const auto allowed = [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_'; };
  if (out.host.empty() || !std::all_of(out.host.begin(), out.host.end(), allowed)) return std::nullopt;
  return out;
}

}  // namespace

std::string Quote(std::string_view text) {
  constexpr size_t kShown = 64;
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) {
    if (IsControl(c)) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  if (text.size() > kShown) out += "...";
  return ReplaceInvalidUtf8(out + "\"");
}

Parsed<int64_t> ParseInteger(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  const bool negative = text.starts_with('-');
  if (!IsDigits(text.substr(negative ? 1 : 0))) return {{}, Quote(text) + " is not a whole number"};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < min || value > max) return {{}, Quote(text) + " is out of range"};
  return {value, ""};
}

Parsed<double> ParseNumber(std::string_view text, double min, double max) {
  const std::string lower = Lower(text);
  for (const char* word : {"nan", "inf"}) {
    if (lower.find(word) != std::string::npos) return {{}, Quote(text) + " is not a finite number"};
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument) {
    return {{}, Quote(text) + " is not a number"};
  }
  if (error != std::errc() || !std::isfinite(value) || value < min || value > max) {
    return {{}, Quote(text) + " is out of range"};
  }
  return {value, ""};
}

Parsed<bool> ParseBool(std::string_view text, bool digits) {
  const std::string lower = Lower(text);
  if (lower == "true" || lower == "yes" || lower == "on" || (digits && lower == "1")) return {true, ""};
  if (lower == "false" || lower == "no" || lower == "off" || (digits && lower == "0")) return {false, ""};
  return {{}, Quote(text) + " is not a boolean"};
}

Parsed<uint32_t> ParsePercentAsBps(std::string_view text) {
  const bool negative = text.starts_with('-');
  const std::string_view number = text.substr(negative ? 1 : 0);
  const size_t point = number.find('.');
  const std::string_view whole = number.substr(0, point);
  const std::string_view decimals = point == std::string_view::npos ? "0" : number.substr(point + 1);
  if (!IsDigits(whole) || !IsDigits(decimals)) return {{}, Quote(text) + " is not a percentage"};
  if (decimals.size() > 2) return {{}, Quote(text) + " has more than two decimals"};
  uint32_t bps = 0;
  const auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), bps);
  if (negative || error != std::errc() || bps > 100) return {{}, Quote(text) + " is out of range"};
  bps = bps * 100 + static_cast<uint32_t>(decimals[0] - '0') * 10;
  if (decimals.size() == 2) bps += static_cast<uint32_t>(decimals[1] - '0');
  if (bps > 10000) return {{}, Quote(text) + " is out of range"};
  return {bps, ""};
}

Parsed<WallTime> ParseTimestamp(std::string_view text) {
  const Parsed<WallTime> refused{{}, Quote(text) + " is not a time"};
  constexpr std::string_view kShape = "dddd-dd-ddTdd:dd:dd";
  if (text.size() <= kShape.size()) return refused;
  for (size_t i = 0; i < kShape.size(); ++i) {
    if (kShape[i] == 'd' ? !IsDigits(text.substr(i, 1)) : text[i] != kShape[i]) return refused;
  }
  const auto number = [](std::string_view digits) {
    int value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  };
  const std::chrono::year_month_day date(std::chrono::year(number(text.substr(0, 4))),
                                         std::chrono::month(static_cast<unsigned>(number(text.substr(5, 2)))),
                                         std::chrono::day(static_cast<unsigned>(number(text.substr(8, 2)))));
  const int hour = number(text.substr(11, 2)), minute = number(text.substr(14, 2)), second = number(text.substr(17, 2));
  constexpr std::chrono::year kFirst(1970), kLast(2261);  // what 64 bits of nanoseconds hold
  if (!date.ok() || date.year() < kFirst || date.year() > kLast || hour > 23 || minute > 59 || second > 59) {
    return refused;
  }
  WallTime time = std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
                  std::chrono::seconds(second);
  std::string_view rest = text.substr(kShape.size());
  if (rest.starts_with('.')) {
    const std::string_view fraction = rest.substr(1, std::min<size_t>(rest.find_first_of("Z+-"), rest.size()) - 1);
    if (!IsDigits(fraction) || fraction.size() > 9) return refused;
    time += Duration(number(std::string(fraction) + std::string(9 - fraction.size(), '0')));
    rest.remove_prefix(1 + fraction.size());
  }
  if (rest == "Z") return {time, ""};
  const bool shaped = rest.size() == 6 && (rest[0] == '+' || rest[0] == '-') && IsDigits(rest.substr(1, 2)) &&
                      rest[3] == ':' && IsDigits(rest.substr(4, 2));
  if (!shaped || number(rest.substr(1, 2)) > 23 || number(rest.substr(4, 2)) > 59) return refused;
  const Duration offset =
      std::chrono::hours(number(rest.substr(1, 2))) + std::chrono::minutes(number(rest.substr(4, 2)));
  return {rest[0] == '+' ? time - offset : time + offset, ""};
}

Parsed<std::string> ParseText(std::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) return {{}, fmt::format("has {} bytes", text.size())};
  if (std::any_of(text.begin(), text.end(), IsControl)) return {{}, Quote(text) + " has a control character"};
  if (!IsValidUtf8(text)) return {{}, Quote(text) + " is not valid UTF-8"};
  return {std::string(text), ""};
}

Parsed<std::string> ParseName(std::string_view text) {
  constexpr size_t kMaxBytes = 128;
  constexpr std::string_view kPunctuation = "._:/@+-";
  if (text.empty()) return {{}, "is empty"};
  if (text.size() > kMaxBytes) return {{}, fmt::format("has {} bytes", text.size())};
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && kPunctuation.find(c) == std::string_view::npos) return {{}, Quote(text) + " is not a name"};
  }
  return {std::string(text), ""};
}

Parsed<std::string> ParseHeaderName(std::string_view text) {
  const bool fit = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '-' || c == '_' || c == '.';
  });
  if (text.empty() || !fit || text.ends_with("-bin")) return {std::nullopt, " is not known"};
  if (flags::IsSecretHeader(text)) return {std::nullopt, " carries a secret"};
  return {std::string(text), ""};
}

Parsed<std::string> ParseAddress(std::string_view text) {
  const std::optional<HostPort> parts = text.size() <= 260 ? SplitAddress(text) : std::nullopt;
  if (!parts || !ParseInteger(parts->port, 0, 65535).value || parts->port.starts_with('-')) {
    return {{}, Quote(text) + " is not an address"};
  }
  return {std::string(text), ""};
}

Parsed<std::string> ParseGrpcAddress(std::string_view text) {
  if (!text.starts_with(kUnixScheme)) return ParseAddress(text);
  constexpr size_t kMaxPathBytes = sizeof(sockaddr_un::sun_path) - 1;
  const std::string_view path = text.substr(kUnixScheme.size());
  const Parsed<std::string> parsed = ParseText(path, kMaxPathBytes);
  if (!parsed.value) return {{}, parsed.what};
  if (!path.starts_with('/') || path.ends_with('/')) return {{}, Quote(text) + " is not an absolute path of a file"};
  return {std::string(text), ""};
}

bool IsLoopback(std::string_view address) {
  if (address.starts_with(kUnixScheme)) return true;
  const std::optional<HostPort> parts = SplitAddress(address);
  if (!parts) return false;
  const std::string host(parts->host);
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return Lower(host) == "localhost";
}

std::string ScreamingCase(std::string_view key) {
  std::string out;
  bool after_lower = false;
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    if (after_lower && std::isupper(byte) != 0) out += '_';
    after_lower = std::islower(byte) != 0;
    out += c == '.' ? '_' : static_cast<char>(std::toupper(byte));
  }
  return out;
}

std::optional<std::string> NearestName(std::string_view name, const std::vector<std::string>& candidates) {
  constexpr size_t kLongestName = 128;
  if (name.size() > kLongestName) return std::nullopt;
  const std::string folded = Folded(name);
  size_t best = std::max<size_t>(1, std::min<size_t>(4, folded.size() / 3)) + 1;
  std::optional<std::string> nearest;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(folded, Folded(candidate));
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace sluice::config
