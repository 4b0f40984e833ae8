// config/qos-policies.yaml: policies, quotas, and the webhooks that alerts name. Every fault at once, as in
// config_loader.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "qos/policy.h"
#include "qos/quotas.h"

namespace sluice::config {

struct AlertWebhook {
  std::string name, url;  // http:// or https://
  Duration timeout = std::chrono::seconds(5);
  int max_retries = 3;
  Duration dedup_window = std::chrono::minutes(5);  // the same alert is told once in it; zero: each time
  std::string secret_file;                          // its content signs each message; empty: none does
};

struct QosFile {
  std::shared_ptr<const qos::PolicySet> policies;
  std::vector<qos::QuotaRule> quotas;
  std::vector<AlertWebhook> alerts;
  Duration evaluation_interval = std::chrono::milliseconds(250);
};

// `epoch`: of the PolicySet. INVALID_ARGUMENT with a line for each fault; NOT_FOUND. Does not open secret files.
absl::StatusOr<QosFile> LoadQosFile(const std::string& path, uint64_t epoch);

}  // namespace sluice::config
