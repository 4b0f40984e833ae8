// Are the objectives met, and what follows? Outcomes go in, once in a while the windows are judged, each policy climbs
// or leaves its ladder, and every request is told what holds for it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "qos/policy.h"
#include "qos/request.h"

namespace sluice::qos {

// How one request ended. The views are valid for the call.
struct RequestOutcome {
  std::string_view tenant, model;
  QosClass qos_class = QosClass::kStandard;
  MonoTime ended{};
  bool counts = true;   // false: a client's fault, a cancel or a refusal; only its tokens count
  bool failed = false;  // the server's fault
  std::optional<Duration> ttft, tpot, latency, queue_wait;  // what there is
  int output_tokens = 0;
};

// Readings of the whole process; negative: not known now.
struct SystemState {
  double running = -1, queued = -1;             // requests
  double kv_usage = -1, memory = -1, cpu = -1;  // shares 0..1
};

enum class ObjectiveState { kUnknown, kMet, kViolated };

// What holds for one request. `policy` views live as long as `snapshot`.
struct PolicyEffects {
  struct Actions {
    std::string_view shed_by;        // policy that refuses it; empty: none
    std::string_view max_tokens_by;  // policy that cuts it to max_tokens
    int max_tokens = 0;
    std::string_view pipeline_by, pipeline;  // policy that switches its pipeline, and to which
    std::string_view upstream_by, upstream;
  };
  Actions enforced, dry_run;  // dry_run: what policies that are not enforced (for this request) would add
  uint64_t epoch = 0;
  std::shared_ptr<const void> snapshot;  // null: no policy acts
};

// An action that is done once, by whoever called Evaluate, or a standing limit that changed.
struct ActionOrder {
  std::string policy, metric;  // who and why
  double value = 0, threshold = 0;
  int step = 0;         // of the policy's ladder
  bool dry_run = true;  // true: log it only
  Action action;
  bool begins = true;  // false: a standing action ends
};

struct PolicyStatus {
  std::string id;
  PolicyMode mode = PolicyMode::kOff;
  int step = 0;          // 0: nothing is done
  std::string held_by;   // why it does not step although it is violated: "cooldown", "cap", "loop"; else empty
  Duration since{};      // of the present step
  uint64_t actions = 0;  // taken, ever
  struct ObjectiveStatus {
    std::string metric;
    ObjectiveState state = ObjectiveState::kUnknown;
    double value = 0, threshold = 0;  // value: meaningless when unknown
    int64_t samples = 0;
  };
  std::vector<ObjectiveStatus> objectives;
};

// Thread-safety: thread-safe. Decide takes no lock shared between requests and allocates nothing; Record takes a short
// one of a few shards; Evaluate and SetPolicies exclude each other. State is bounded by the policies, not by tenants.
class PolicyEngine {
 public:
  // Metrics: sluice_qos_policy_step{policy,mode}, sluice_qos_objective_violated{policy,metric} (absent while unknown),
  // sluice_qos_objective_value{policy,metric}, sluice_qos_actions_total{policy,action,mode,outcome},
  // sluice_qos_outcomes_dropped_total.
  PolicyEngine(std::shared_ptr<const PolicySet> policies, const Clock& clock, MetricsRegistry& metrics);
  ~PolicyEngine();

  // Policies that stay as they are keep their windows and step; a changed or new one starts at step 0.
  // The orders end standing actions of policies that went.
  std::vector<ActionOrder> SetPolicies(std::shared_ptr<const PolicySet> policies);

  void Record(const RequestOutcome& outcome);
  // Judges every policy. Call it a few times a second.
  std::vector<ActionOrder> Evaluate(const SystemState& state);
  PolicyEffects Decide(const Request& request) const;

  std::vector<PolicyStatus> Status() const;
  std::shared_ptr<const PolicySet> policies() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
