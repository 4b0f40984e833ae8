// QoS policies as data: for whom, which objectives, and what is done, step by step, while one is missed.
// File: config/qos-policies.yaml (docs/configuration.md); PolicySet is a validated file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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

// What an objective looks at, in the unit that the metric's name ends with. Samples (one a request, over the window)
// have a quantile; rates and shares are over the window; levels are the newest reading of the whole process.
enum class Signal {
  kTtft,         // sample, ms
  kTpot,         // sample, ms per output token after the first
  kLatency,      // sample, ms from arrival to the end
  kQueueWait,    // sample, ms until admitted and scheduled
  kErrorRate,    // percent of the requests that ended; client faults, cancels and refusals count for neither
  kRequestRate,  // requests that succeeded, per second
  kTokenRate,    // output tokens per second
  kRunning,      // level, requests that hold a permit
  kQueued,       // level, requests that wait for one
  kKvUsage,      // level, percent, of the fullest model
  kMemory,       // level, percent of the limit
  kCpu,          // level, percent of all cores; engine threads left out
};

enum class SignalKind { kSample, kRate, kLevel };
SignalKind KindOf(Signal signal);  // kErrorRate: a rate

// A minimum (at_least) is missed only while requests wait for a permit: with nobody waiting, nobody asked for more, and
// a value below it is unknown.
struct Objective {
  std::string metric;  // as the file spells it: "ttft_p95_ms", "error_rate_percent", "requests_per_s", ...
  Signal signal = Signal::kTtft;
  double quantile = 0;    // 0..1; of samples only
  bool at_least = false;  // rates and kRunning only; false: the value must not exceed the threshold
  double threshold = 0;
  Duration window = std::chrono::seconds(60);  // not of levels
  int min_samples = 30;  // fewer in the window: the objective is unknown, neither met nor violated; not of levels
  Severity severity = Severity::kWarning;

  bool operator==(const Objective&) const = default;
};

enum class ActionKind {
  kQueue,             // at most `limit` requests of each of `classes` run at once, the others wait
  kLimitMaxTokens,    // answers are cut to `limit` tokens
  kSwitchPipeline,    // `target` serves: "baseline"
  kShed,              // requests of `classes` are refused
  kOpenCircuit,       // the breaker of the pipeline `target` is forced open for `duration`      (once an action)
  kUnloadIdleModels,  // models that nobody uses are unloaded                                     (once an action)
  kPreferUpstream,    // `target` serves, when there is such an upstream
  kAlert,             // the webhook named `target` is told                                       (once an action)
};

// Standing actions hold from their step until the policy steps below it; the others are done when their step is taken,
// and again each cooldown while the violation lasts.
struct Action {
  ActionKind kind = ActionKind::kAlert;
  int limit = 0;
  uint8_t classes = 0;  // bit i: QosClass i
  std::string target;
  Duration duration = Duration::zero();

  bool operator==(const Action&) const = default;
};
bool IsOnce(ActionKind kind);

// Empty: all.
struct Scope {
  absl::flat_hash_set<std::string> tenants, models;
  uint8_t classes = 0;  // bit i: QosClass i; 0: all

  bool operator==(const Scope&) const = default;
};

struct Policy {
  std::string id, description;
  PolicyMode mode = PolicyMode::kDryRun;
  double enforced_percent = 100;                 // of targeting keys, in mode enforce; the rest is as in dry_run
  int priority = 0;                              // larger decides first
  Scope scope;                                   // whose requests are measured (levels are of the whole process)
  std::optional<Scope> acts_on;                  // whose requests the ladder touches; none: those that are measured
  std::vector<Objective> objectives;             // violated when one of them is
  std::vector<Action> ladder;                    // step n takes actions 0..n-1
  Duration cooldown = std::chrono::seconds(30);  // between two steps, up or down
  Duration violated_for = Duration::zero();      // before the first step
  Duration recovered_for = std::chrono::seconds(30);  // all objectives hold by the margin this long, then a step down
  double recovery_margin = 0.1;                       // share of the threshold that must be to spare
  int max_actions = 5;                                // steps up and repeated actions in `action_window`
  Duration action_window = std::chrono::minutes(5);
  int max_reversals = 6;  // steps of alternating direction in `action_window` are a loop: stay at the present step

  const Scope& acted_on() const { return acts_on ? *acts_on : scope; }
  bool operator==(const Policy&) const = default;
};

// A validated set; immutable. Thread-safety: thread-safe.
class PolicySet {
 public:
  // INVALID_ARGUMENT with a line for each fault (policy_faults.h), naming policy and key.
  static absl::StatusOr<std::shared_ptr<const PolicySet>> Create(std::vector<Policy> policies, uint64_t epoch);
  static constexpr size_t kMaxPolicies = 256;
  static constexpr size_t kMaxObjectives = 512;  // of all policies together: what bounds the memory of the windows

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
