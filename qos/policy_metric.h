// The metrics that objectives may name. A name carries its unit: "ttft_p95_ms", "error_rate_percent".
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "qos/policy.h"

namespace sluice::qos {

struct PolicyMetric {
  Signal signal = Signal::kTtft;
  double quantile = 0;  // of samples only
};

// INVALID_ARGUMENT whose message says what is wrong and, where one is near, which name was probably meant.
absl::StatusOr<PolicyMetric> ParsePolicyMetric(std::string_view name);

// For messages: every name, with pNN for the quantile.
std::string_view PolicyMetricsAllowed();

}  // namespace sluice::qos
