// What one replica tells the others about the quotas it charged: running totals, so that nothing is counted twice and a
// lost message costs nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::qos {

struct QuotaUsage {
  uint64_t requests = 0, prompt_tokens = 0, output_tokens = 0;  // since the replica began; reserved ones included
  int running = 0;                                              // now
  bool operator==(const QuotaUsage&) const = default;
};
// By the key of what is limited (rule and tenant; any bytes).
using QuotaUsages = std::map<std::string, QuotaUsage>;

// At most `max_bytes`; what does not fit is left out (the last keys).
std::string EncodeQuotaUsages(const QuotaUsages& usages, size_t max_bytes);
// nullopt: not written by EncodeQuotaUsages.
std::optional<QuotaUsages> DecodeQuotaUsages(std::string_view text);

}  // namespace sluice::qos
