#include "qos/policy.h"

#include <algorithm>
#include <array>

#include "base/strings.h"
#include "fmt/format.h"
#include "qos/policy_faults.h"

namespace sluice::qos {
namespace {

constexpr std::array<std::string_view, 3> kModes = {"off", "dry_run", "enforce"};
constexpr std::array<std::string_view, 3> kSeverities = {"info", "warning", "critical"};
constexpr std::array<std::string_view, 8> kActions = {"queue",        "limit_max_tokens",   "switch_pipeline", "shed",
                                                      "open_circuit", "unload_idle_models", "prefer_upstream", "alert"};

}  // namespace

std::string_view PolicyModeName(PolicyMode mode) { return kModes.at(static_cast<size_t>(mode)); }
std::string_view ActionName(ActionKind kind) { return kActions.at(static_cast<size_t>(kind)); }
std::string_view SeverityName(Severity severity) { return kSeverities.at(static_cast<size_t>(severity)); }

SignalKind KindOf(Signal signal) {
  switch (signal) {
    case Signal::kTtft:
    case Signal::kTpot:
    case Signal::kLatency:
    case Signal::kQueueWait:
      return SignalKind::kSample;
    case Signal::kErrorRate:
    case Signal::kRequestRate:
    case Signal::kTokenRate:
      return SignalKind::kRate;
    default:
      return SignalKind::kLevel;
  }
}

bool IsOnce(ActionKind kind) {
  return kind == ActionKind::kOpenCircuit || kind == ActionKind::kUnloadIdleModels || kind == ActionKind::kAlert;
}

absl::StatusOr<std::shared_ptr<const PolicySet>> PolicySet::Create(std::vector<Policy> policies, uint64_t epoch) {
  std::string text;
  for (const PolicyFault& fault : FindPolicyFaults(policies)) {
    text += fmt::format("{}policy \"{}\": {}{}{}; allowed: {}", text.empty() ? "" : "\n", fault.policy, fault.field,
                        fault.field.empty() ? "" : ": ", fault.what, fault.allowed);
  }
  if (!text.empty()) return absl::InvalidArgumentError(ToAbsl(text));
  std::stable_sort(policies.begin(), policies.end(),
                   [](const Policy& a, const Policy& b) { return a.priority > b.priority; });
  return std::shared_ptr<const PolicySet>(new PolicySet(std::move(policies), epoch));
}

}  // namespace sluice::qos
