#include "qos/policy_metric.h"

#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "base/edit_distance.h"
#include "base/strings.h"
#include "fmt/format.h"

namespace sluice::qos {
namespace {

constexpr std::array<std::pair<std::string_view, Signal>, 4> kSamples = {{{"ttft", Signal::kTtft},
                                                                          {"tpot", Signal::kTpot},
                                                                          {"latency", Signal::kLatency},
                                                                          {"queue_wait", Signal::kQueueWait}}};
constexpr std::array<std::pair<std::string_view, Signal>, 8> kOthers = {{{"error_rate_percent", Signal::kErrorRate},
                                                                         {"requests_per_s", Signal::kRequestRate},
                                                                         {"output_tokens_per_s", Signal::kTokenRate},
                                                                         {"running_requests", Signal::kRunning},
                                                                         {"queued_requests", Signal::kQueued},
                                                                         {"kv_usage_percent", Signal::kKvUsage},
                                                                         {"memory_percent", Signal::kMemory},
                                                                         {"cpu_percent", Signal::kCpu}}};

// "95" or "99.9", above 0 and below 100, with at most one decimal and no needless zeros: one quantile has one name.
std::optional<double> ParsePercentile(std::string_view digits) {
  const size_t dot = digits.find('.');
  const bool whole = dot == std::string_view::npos;
  if (digits.empty() || digits.size() > 4 || digits[0] == '0') {
    if (!digits.starts_with("0.")) return std::nullopt;
  }
  if (!whole && (dot == 0 || digits.size() != dot + 2 || digits[dot + 1] == '0')) return std::nullopt;
  double value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != digits.data() + digits.size() || value <= 0 || value >= 100) return std::nullopt;
  return value;
}

// What was probably meant; empty: nothing is near.
std::string Nearest(std::string_view name) {
  std::string best;
  size_t distance = 4;
  const auto look = [&](std::string candidate) {
    const size_t d = EditDistance(name, candidate);
    if (d < distance) {
      distance = d;
      best = std::move(candidate);
    }
  };
  for (const auto& [sample, signal] : kSamples) look(fmt::format("{}_p95_ms", sample));
  for (const auto& [other, signal] : kOthers) look(std::string(other));
  return best;
}

}  // namespace

absl::StatusOr<PolicyMetric> ParsePolicyMetric(std::string_view name) {
  for (const auto& [other, signal] : kOthers) {
    if (name == other) return PolicyMetric{.signal = signal};
  }
  for (const auto& [sample, signal] : kSamples) {
    if (!name.starts_with(sample) || !name.ends_with("_ms")) continue;
    const std::string_view middle = name.substr(sample.size(), name.size() - sample.size() - 3);
    if (!middle.starts_with("_p")) continue;
    if (const auto percentile = ParsePercentile(middle.substr(2)))
      return PolicyMetric{signal, std::round(*percentile * 10) / 1000};
    return absl::InvalidArgumentError("is a metric, but not with this quantile");
  }
  const std::string nearest = name.size() <= 64 ? Nearest(name) : "";
  return absl::InvalidArgumentError(
      ToAbsl(nearest.empty() ? "unknown metric" : fmt::format("unknown metric (did you mean {}?)", nearest)));
}

std::string_view PolicyMetricsAllowed() {
  return "ttft_pNN_ms, tpot_pNN_ms, latency_pNN_ms, queue_wait_pNN_ms (NN: 0.1 to 99.9), error_rate_percent, "
         "requests_per_s, output_tokens_per_s, running_requests, queued_requests, kv_usage_percent, memory_percent, "
         "cpu_percent";
}

}  // namespace sluice::qos
