// QoS policies as data: for whom, which objectives, and what is done, step by step, while one is missed.
// File: config/qos-policies.yaml (docs/configuration.md); PolicySet is a validated file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "qos/qos_class.h"

namespace sluice::qos {

enum class PolicyMode { kOff, kDryRun, kEnforce };
enum class Severity { kInfo, kWarning, kCritical };

// What an objective looks at. Samples (one a request, over the window) have a quantile; rates and shares are over the
// window; levels are the newest reading of the whole process.
enum class Signal {
  kTtft,         // sample, ms
  kTpot,         // sample, ms per output token after the first
  kLatency,      // sample, ms from arrival to the end
  kQueueWait,    // sample, ms until admitted and scheduled
  kErrorRate,    // share 0..1 of the requests that ended; client faults, cancels and refusals count for neither
  kRequestRate,  // requests that succeeded, per second
  kTokenRate,    // output tokens per second
  kRunning,      // level, requests that hold a permit
  kQueued,       // level, requests that wait for one
  kKvUsage,      // level, share 0..1 of the fullest model
  kMemory,       // level, share 0..1 of the limit
  kCpu,          // level, share 0..1 of all cores; engine threads left out
};

struct Objective {
  std::string metric;  // as the file spells it: "ttft_p95_ms", "error_rate_percent", "requests_per_s", ...
  Signal signal = Signal::kTtft;
  double quantile = 0;    // 0..1; of samples only
  bool at_least = false;  // false: the value must not exceed the threshold
  double threshold = 0;   // in the unit of Signal
  Duration window = std::chrono::seconds(60);
  int min_samples = 30;  // fewer in the window: the objective is unknown, neither met nor violated
  Severity severity = Severity::kWarning;
};

enum class ActionKind {
  kQueue,             // at most `limit` requests of `classes` run at once, the others wait
  kLimitMaxTokens,    // answers are cut to `limit` tokens
  kSwitchPipeline,    // `target` serves: "baseline"
  kShed,              // requests of `classes` are refused
  kOpenCircuit,       // the breaker of the pipeline `target` is forced open for `duration`      (once an action)
  kUnloadIdleModels,  // models that nobody uses are unloaded                                     (once an action)
  kPreferUpstream,    // `target` serves, when there is such an upstream
  kAlert,             // the webhook named `target` is told                                       (once an action)
};

// Standing actions hold from their step until the policy steps below it; the others are done once a step, and again
// each cooldown while the violation lasts.
struct Action {
  ActionKind kind = ActionKind::kAlert;
  int limit = 0;
  uint8_t classes = 0;  // bit i: QosClass i
  std::string target;
  Duration duration = Duration::zero();
};

// Empty: all.
struct Scope {
  absl::flat_hash_set<std::string> tenants, models;
  uint8_t classes = 0;  // bit i: QosClass i; 0: all
};

struct Policy {
  std::string id, description;
  PolicyMode mode = PolicyMode::kDryRun;
  double enforced_percent = 100;  // of targeting keys, in mode enforce; the rest is as in dry_run
  int priority = 0;               // larger decides first
  Scope scope;
  std::vector<Objective> objectives;                  // violated when one of them is
  std::vector<Action> ladder;                         // step n takes actions 0..n-1
  Duration cooldown = std::chrono::seconds(30);       // between two steps, up or down
  Duration violated_for = Duration::zero();           // before the first step
  Duration recovered_for = std::chrono::seconds(30);  // all objectives hold by the margin this long, then a step down
  double recovery_margin = 0.1;                       // share of the threshold that must be to spare
  int max_actions = 5;                                // steps up and repeated actions in `action_window`
  Duration action_window = std::chrono::minutes(5);
  int max_reversals = 6;  // steps of alternating direction in `action_window` are a loop: stay at the present step
};

// A validated set; immutable. Thread-safety: thread-safe.
class PolicySet {
 public:
  // INVALID_ARGUMENT naming policy and key: duplicate ids, a ladder that contradicts itself (a limit that loosens as it
  // climbs, the same action twice, shedding a class that a lower step sheds already), queue with a scope of tenants or
  // models or below 100 %, no objective, numbers out of range, more than `kMaxPolicies`.
  static absl::StatusOr<std::shared_ptr<const PolicySet>> Create(std::vector<Policy> policies, uint64_t epoch);
  static constexpr size_t kMaxPolicies = 256;

  const std::vector<Policy>& policies() const { return policies_; }  // by falling priority, then as given
  uint64_t epoch() const { return epoch_; }

 private:
  PolicySet(std::vector<Policy> policies, uint64_t epoch) : policies_(std::move(policies)), epoch_(epoch) {}
  std::vector<Policy> policies_;
  uint64_t epoch_;
};

std::string_view PolicyModeName(PolicyMode mode);  // "off", "dry_run", "enforce"
std::string_view ActionName(ActionKind kind);      // "queue", "limit_max_tokens", ...
std::string_view SeverityName(Severity severity);  // "info", ...

}  // namespace sluice::qos
