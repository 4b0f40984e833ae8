// config/qos-policies.yaml: policies, quotas, and the webhooks that alerts name. Every fault at once, as in
// config_loader.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/alerts.h"
#include "qos/policy.h"
#include "qos/quotas.h"

namespace sluice::config {

struct QosFile {
  std::shared_ptr<const qos::PolicySet> policies;
  std::vector<qos::QuotaRule> quotas;
  std::vector<AlertWebhook> alerts;
  Duration evaluation_interval = std::chrono::milliseconds(250);
};

// `epoch`: of the PolicySet. INVALID_ARGUMENT with a line for each fault; NOT_FOUND. Does not open secret files.
absl::StatusOr<QosFile> LoadQosFile(const std::string& path, uint64_t epoch);

}  // namespace sluice::config
