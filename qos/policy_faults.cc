#include "qos/policy_faults.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "qos/policy_metric.h"

namespace sluice::qos {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kMaxIdBytes = 128, kMaxObjectivesOfOne = 8, kMaxSteps = 16;
constexpr uint8_t kSystem = 1 << static_cast<int>(QosClass::kSystem);
constexpr double kLargestThreshold = 1e9;

std::string ClassNames(uint8_t classes) {
  std::string out;
  for (int i = 0; i < kQosClassCount; ++i) {
    if ((classes >> i & 1) != 0) out += (out.empty() ? "" : ", ") + std::string(QosClassName(static_cast<QosClass>(i)));
  }
  return out;
}

// One policy's check; collects into `faults`.
class Check {
 public:
  Check(size_t index, const Policy& policy, std::vector<PolicyFault>& faults)
      : index_(index), policy_(policy), faults_(faults) {}

  void All() {
    Numbers();
    if (policy_.objectives.empty()) Fault("objectives", "none", "1 to 8 objectives");
    if (policy_.objectives.size() > kMaxObjectivesOfOne) Fault("objectives", "too many", "1 to 8 objectives");
    if (policy_.ladder.size() > kMaxSteps) Fault("ladder", "too many steps", "at most 16 steps");
    for (size_t i = 0; i < policy_.objectives.size(); ++i) One(i, policy_.objectives[i]);
    for (size_t i = 0; i < policy_.ladder.size(); ++i) Step(i, policy_.ladder[i]);
  }

  void Fault(std::string_view field, std::string what, std::string allowed) {
    faults_.push_back({index_, policy_.id, std::string(field), std::move(what), std::move(allowed)});
  }

 private:
  void Time(std::string_view field, Duration value, Duration min, Duration max) {
    if (value >= min && value <= max) return;
    Fault(field, fmt::format("{} ms", ToMillis(value)), fmt::format("{} to {} ms", ToMillis(min), ToMillis(max)));
  }
  template <typename Number>
  void Range(std::string_view field, Number value, Number min, Number max) {
    if (!(value >= min && value <= max)) Fault(field, fmt::format("{}", value), fmt::format("{} to {}", min, max));
  }

  void Numbers() {
    Range("enforced_percent", policy_.enforced_percent, 0.0, 100.0);
    Range("priority", policy_.priority, -1'000'000, 1'000'000);
    Time("cooldown_ms", policy_.cooldown, Duration::zero(), hours(24));
    Time("violated_for_ms", policy_.violated_for, Duration::zero(), hours(24));
    Time("recovered_for_ms", policy_.recovered_for, Duration::zero(), hours(24));
    Range("recovery_margin_percent", policy_.recovery_margin * 100, 0.0, 90.0);
    Range("max_actions", policy_.max_actions, 1, 1000);
    Time("action_window_ms", policy_.action_window, seconds(1), hours(24));
    Range("max_reversals", policy_.max_reversals, 0, 1000);
  }

  void One(size_t i, const Objective& objective) {
    const std::string field = fmt::format("objectives[{}]", i);
    const auto metric = ParsePolicyMetric(objective.metric);
    if (!metric.ok()) {
      Fault(field + ".metric", std::string(metric.status().message()), std::string(PolicyMetricsAllowed()));
      return;
    }
    if (metric->signal != objective.signal || metric->quantile != objective.quantile) {
      Fault(field + ".metric", "is not what the signal says", "a signal and its own metric");
    }
    const bool percent = objective.metric.ends_with("_percent");
    const std::string key = field + (objective.at_least ? ".at_least" : ".at_most");
    Range(key, objective.threshold, 0.0, percent ? 100.0 : kLargestThreshold);
    const SignalKind kind = KindOf(objective.signal);
    if (objective.at_least && objective.signal != Signal::kRequestRate && objective.signal != Signal::kTokenRate &&
        objective.signal != Signal::kRunning) {
      Fault(key, fmt::format("a minimum of {}", objective.metric),
            "at_most; at_least of requests_per_s, output_tokens_per_s and running_requests only");
    }
    if (kind != SignalKind::kLevel) {
      Time(field + ".window_ms", objective.window, seconds(1), hours(1));
      Range(field + ".min_samples", objective.min_samples, 1, 1'000'000);
    }
    for (size_t other = 0; other < i; ++other) Against(key, objective, policy_.objectives[other]);
  }

  void Against(const std::string& key, const Objective& objective, const Objective& earlier) {
    if (earlier.metric != objective.metric) return;
    if (earlier.at_least == objective.at_least) {
      if (earlier.window != objective.window) return;
      Fault(key, fmt::format("{} has this kind of threshold already", objective.metric),
            "one for each metric and window of a policy");
      return;
    }
    const Objective& minimum = earlier.at_least ? earlier : objective;
    const Objective& maximum = earlier.at_least ? objective : earlier;
    if (minimum.threshold < maximum.threshold) return;
    Fault(key, fmt::format("{} can never be met beside the other threshold", objective.metric),
          "a minimum below the maximum");
  }

  void Step(size_t i, const Action& action) {
    const std::string field = fmt::format("ladder[{}]", i);
    const std::vector<Action> lower(policy_.ladder.begin(), policy_.ladder.begin() + static_cast<ptrdiff_t>(i));
    if (std::find(lower.begin(), lower.end(), action) != lower.end()) {
      Fault(field, fmt::format("the same {} again", ActionName(action.kind)), "each action once");
      return;
    }
    switch (action.kind) {
      case ActionKind::kQueue:
      case ActionKind::kShed:
        Classes(field, action, lower);
        break;
      case ActionKind::kLimitMaxTokens:
        Limit(field, action, lower);
        break;
      case ActionKind::kSwitchPipeline:
      case ActionKind::kPreferUpstream:
        if (Has(lower, action.kind)) {
          Fault(field, fmt::format("a second {}", ActionName(action.kind)), "one in a ladder");
        }
        Target(field, action);
        break;
      case ActionKind::kOpenCircuit:
        Target(field, action);
        if (Has(policy_.ladder, ActionKind::kSwitchPipeline, action.target)) {
          Fault(field, fmt::format("opens the circuit of {}, which this ladder switches to", action.target),
                "the circuit of another pipeline");
        }
        Time(field + ".for_ms", action.duration, milliseconds(1), hours(24));
        break;
      case ActionKind::kAlert:
        Target(field, action);
        break;
      case ActionKind::kUnloadIdleModels:
        break;
    }
    WholeProcess(field, action);
  }

  static bool Has(const std::vector<Action>& ladder, ActionKind kind, std::string_view target = {}) {
    return std::any_of(ladder.begin(), ladder.end(), [&](const Action& action) {
      return action.kind == kind && (target.empty() || action.target == target);
    });
  }

  void Target(const std::string& field, const Action& action) {
    if (action.target.empty() || action.target.size() > kMaxIdBytes) {
      Fault(field, fmt::format("{} without a name", ActionName(action.kind)), "a name of 1 to 128 bytes");
    }
  }

  void Limit(const std::string& field, const Action& action, const std::vector<Action>& lower) {
    Range(field, action.limit, 1, 1 << 20);
    for (const Action& earlier : lower) {
      if (earlier.kind != ActionKind::kLimitMaxTokens || earlier.limit > action.limit) continue;
      Fault(field, fmt::format("{} tokens after {}", action.limit, earlier.limit),
            "limits that tighten with each step");
    }
  }

  void Classes(const std::string& field, const Action& action, const std::vector<Action>& lower) {
    const bool queue = action.kind == ActionKind::kQueue;
    const std::string name(ActionName(action.kind));
    if (action.classes == 0) Fault(field, name + " without a class", "interactive, standard, batch");
    if ((action.classes & kSystem) != 0) Fault(field, name + " of system", "interactive, standard, batch");
    if (queue) Range(field + ".at_most_running", action.limit, 1, 1'000'000);
    const uint8_t acted = policy_.acted_on().classes;
    if (const uint8_t outside = action.classes & static_cast<uint8_t>(~acted); acted != 0 && outside != 0) {
      Fault(field,
            fmt::format("{} of {}, but the policy acts on {} only", name, ClassNames(outside), ClassNames(acted)),
            "classes of acts_on (or of scope, without acts_on)");
    }
    for (const Action& earlier : lower) {
      const uint8_t both = earlier.classes & action.classes;
      if (both == 0) continue;
      if (earlier.kind == ActionKind::kShed) {
        Fault(field, fmt::format("{} is shed by a lower step", ClassNames(both)), "classes that are not shed yet");
      } else if (queue && earlier.kind == ActionKind::kQueue && earlier.limit <= action.limit) {
        Fault(field, fmt::format("{} of {} at once after {}", action.limit, ClassNames(both), earlier.limit),
              "limits that tighten with each step");
      }
    }
  }

  void WholeProcess(const std::string& field, const Action& action) {
    const bool queue = action.kind == ActionKind::kQueue;
    if (!queue && action.kind != ActionKind::kOpenCircuit && action.kind != ActionKind::kUnloadIdleModels) return;
    const std::string name(ActionName(action.kind));
    if (policy_.enforced_percent != 100) {
      Fault(field, name + " acts on the whole process, so not for a percentage of keys", "enforced_percent: 100");
    }
    const Scope& acted = policy_.acted_on();
    if (queue && (!acted.tenants.empty() || !acted.models.empty())) {
      Fault(field, "queue counts whole classes, so not certain tenants or models", "acts_on: {} or classes only");
    }
  }

  const size_t index_;
  const Policy& policy_;
  std::vector<PolicyFault>& faults_;
};

bool IsId(std::string_view id) {
  const auto fine = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._:/@+-").find(c) != std::string_view::npos;
  };
  return !id.empty() && id.size() <= kMaxIdBytes && std::all_of(id.begin(), id.end(), fine);
}

}  // namespace

std::vector<PolicyFault> FindPolicyFaults(const std::vector<Policy>& policies) {
  std::vector<PolicyFault> faults;
  absl::flat_hash_set<std::string> ids;
  size_t objectives = 0;
  for (size_t i = 0; i < policies.size(); ++i) {
    Check check(i, policies[i], faults);
    if (i == PolicySet::kMaxPolicies) {
      check.Fault("", "one policy too many", fmt::format("{} policies", PolicySet::kMaxPolicies));
      break;
    }
    if (!IsId(policies[i].id)) check.Fault("id", "is not a name", "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -");
    if (!ids.insert(policies[i].id).second) check.Fault("id", "is the id of an earlier policy", "ids that differ");
    const bool full = objectives > PolicySet::kMaxObjectives;
    objectives += policies[i].objectives.size();
    if (!full && objectives > PolicySet::kMaxObjectives) {
      check.Fault("objectives", "too many in all policies together",
                  fmt::format("{} objectives", PolicySet::kMaxObjectives));
    }
    check.All();
  }
  return faults;
}

}  // namespace sluice::qos
