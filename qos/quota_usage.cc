#include "qos/quota_usage.h"

#include <charconv>

#include "fmt/format.h"

namespace sluice::qos {
namespace {

constexpr std::string_view kHeader = "sluice-quotas 1\n";

// The number before `end`, which is taken off with it.
template <typename T>
bool TakeNumber(std::string_view& text, char end, T& out) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || stop == text.data() + text.size() || *stop != end) return false;
  text.remove_prefix(static_cast<size_t>(stop - text.data()) + 1);
  return true;
}

}  // namespace

// One entry: "REQUESTS PROMPT OUTPUT RUNNING LENGTH:KEY\n".
std::string EncodeQuotaUsages(const QuotaUsages& usages, size_t max_bytes) {
  std::string text(kHeader);
  for (const auto& [key, u] : usages) {
    const std::string entry =
        fmt::format("{} {} {} {} {}:{}\n", u.requests, u.prompt_tokens, u.output_tokens, u.running, key.size(), key);
    if (text.size() + entry.size() > max_bytes) break;
    text += entry;
  }
  return text;
}

std::optional<QuotaUsages> DecodeQuotaUsages(std::string_view text) {
  if (!text.starts_with(kHeader)) return std::nullopt;
  text.remove_prefix(kHeader.size());
  QuotaUsages usages;
  while (!text.empty()) {
    QuotaUsage u;
    size_t length = 0;
    if (!TakeNumber(text, ' ', u.requests) || !TakeNumber(text, ' ', u.prompt_tokens) ||
        !TakeNumber(text, ' ', u.output_tokens) || !TakeNumber(text, ' ', u.running) ||
        !TakeNumber(text, ':', length) || length >= text.size() || text[length] != '\n') {
      return std::nullopt;
    }
    usages[std::string(text.substr(0, length))] = u;
    text.remove_prefix(length + 1);
  }
  return usages;
}

}  // namespace sluice::qos
