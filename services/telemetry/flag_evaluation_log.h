// The decisions of requests as log events `feature_flag.evaluation`, with the field names of OpenTelemetry's semantic
// conventions for feature flags. Reference: docs/operations.md.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "config/server_config.h"
#include "flags/flag_gate.h"

namespace sluice::services {

// Thread-safety: thread-safe. kOff costs a comparison. Writes the targeting key only as a pseudonym.
class FlagEvaluationLog {
 public:
  explicit FlagEvaluationLog(config::FlagEvaluations which) : which_(which) {}

  // kAll: one line for each of the three flags. kChanges: one for each outcome (flag, variant, reason) that is new
  // since the configuration changed last, at most kMostOutcomes of them; decisions of an older epoch say nothing.
  void Decided(std::string_view request_id, std::string_view targeting_key, const flags::RequestDecisions& decisions)
      ABSL_LOCKS_EXCLUDED(mu_);

  static constexpr size_t kMostOutcomes = 256;

 private:
  bool IsNews(const flags::Decision& decision) ABSL_LOCKS_EXCLUDED(mu_);

  const config::FlagEvaluations which_;
  Mutex mu_;  // leaf lock
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<std::string> outcomes_ ABSL_GUARDED_BY(mu_);  // of epoch_
};

}  // namespace sluice::services
