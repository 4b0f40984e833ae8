// Policies for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "qos/policy.h"
#include "qos/policy_metric.h"

namespace sluice::qos {

inline constexpr uint8_t Bit(QosClass c) { return static_cast<uint8_t>(1 << static_cast<int>(c)); }

inline Objective AtMost(const std::string& metric, double threshold, int min_samples = 1) {
  const auto parsed = ParsePolicyMetric(metric);
  SLUICE_CHECK(parsed.ok(), "a metric of a test");
  return {.metric = metric,
          .signal = parsed->signal,
          .quantile = parsed->quantile,
          .threshold = threshold,
          .min_samples = min_samples};
}

inline Objective AtLeast(const std::string& metric, double threshold, int min_samples = 1) {
  Objective out = AtMost(metric, threshold, min_samples);
  out.at_least = true;
  return out;
}

inline Action Limit(int tokens) { return {.kind = ActionKind::kLimitMaxTokens, .limit = tokens}; }
inline Action Shed(uint8_t classes) { return {.kind = ActionKind::kShed, .classes = classes}; }
inline Action Queue(uint8_t classes, int running) {
  return {.kind = ActionKind::kQueue, .limit = running, .classes = classes};
}
inline Action SwitchPipeline(std::string name) {
  return {.kind = ActionKind::kSwitchPipeline, .target = std::move(name)};
}
inline Action PreferUpstream(std::string name) {
  return {.kind = ActionKind::kPreferUpstream, .target = std::move(name)};
}
inline Action Alert(std::string name) { return {.kind = ActionKind::kAlert, .target = std::move(name)}; }
inline Action Unload() { return {.kind = ActionKind::kUnloadIdleModels}; }
inline Action OpenCircuit(std::string pipeline) {
  return {.kind = ActionKind::kOpenCircuit, .target = std::move(pipeline), .duration = std::chrono::seconds(30)};
}

// Enforced; cooldown 10 s, at once violated, recovered for 20 s, margin 10 %, 5 actions and 6 reversals in 5 minutes.
inline Policy Enforced(std::string id, std::vector<Objective> objectives, std::vector<Action> ladder) {
  return {.id = std::move(id),
          .mode = PolicyMode::kEnforce,
          .objectives = std::move(objectives),
          .ladder = std::move(ladder),
          .cooldown = std::chrono::seconds(10),
          .recovered_for = std::chrono::seconds(20)};
}

inline std::shared_ptr<const PolicySet> SetOf(std::vector<Policy> policies, uint64_t epoch = 1) {
  auto set = PolicySet::Create(std::move(policies), epoch);
  SLUICE_CHECK(set.ok(), std::string(set.status().message()).c_str());
  return *std::move(set);
}

}  // namespace sluice::qos
