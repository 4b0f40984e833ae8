// Are the objectives met, and what follows? Outcomes go in, once in a while the windows are judged, each policy climbs
// or leaves its ladder, and every request is told what holds for it.
#pragma once

#include <array>
#include <limits>
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
  MonoTime ended{};     // unset: now
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

// How many requests of each class may run at once.
using ClassCaps = std::array<int, kQosClassCount>;
inline constexpr int kNoClassCap = std::numeric_limits<int>::max();

// What holds for one request. The views live as long as `snapshot`.
struct PolicyEffects {
  struct Actions {
    std::string_view shed_by;        // policy that refuses it; empty: none
    std::string_view max_tokens_by;  // policy that cuts it to max_tokens; empty also when it asks for no more
    int max_tokens = 0;
    std::string_view pipeline_by, pipeline;  // policy that switches its pipeline, and to which
    std::string_view upstream_by, upstream;
  };
  Actions enforced, dry_run;             // dry_run: what policies that are not enforced (for this request) would add
  uint64_t epoch = 0;                    // of the policies
  std::shared_ptr<const void> snapshot;  // null: no policy acts
};

// An action that is done once, by whoever called Evaluate, or a standing action that begins or ends.
struct ActionOrder {
  std::string policy, metric;       // who and why: the worst objective, or, when it ends, the one that was it last
  double value = 0, threshold = 0;  // in the unit of the metric
  Severity severity = Severity::kWarning;
  int step = 0;         // of the policy's ladder, after it
  bool dry_run = true;  // true: log it only
  Action action;
  bool begins = true;  // false: a standing action ends
};

struct PolicyStatus {
  std::string id;
  PolicyMode mode = PolicyMode::kOff;
  int step = 0;          // 0: nothing is done
  std::string held_by;   // why it does not step although it should (HoldName in policy_ladder.h); else empty
  Duration since{};      // how long it has stood on this step
  uint64_t actions = 0;  // taken, ever
  struct ObjectiveStatus {
    std::string metric;
    Severity severity = Severity::kWarning;
    ObjectiveState state = ObjectiveState::kUnknown;
    double value = 0, threshold = 0;  // in the unit of the metric; value: meaningless when unknown
    int64_t samples = 0;
  };
  std::vector<ObjectiveStatus> objectives;
};

// Thread-safety: thread-safe. Decide takes no lock shared between requests and allocates nothing; Record takes a short
// one of a few shards; Evaluate, SetPolicies and Status exclude each other. State is bounded by the policies, not by
// tenants: 12 slices an objective of at most 8 KiB each (sliding_window.h, sketch.h), so 50 MiB for kMaxObjectives, and
// about 1 MiB of outcomes that wait for the next Evaluate; what does not fit is dropped and counted.
class PolicyEngine {
 public:
  // `policies` not null. Metrics: sluice_qos_policy_step{policy,mode}, sluice_qos_objective_violated{policy,metric} and
  // sluice_qos_objective_value{policy,metric} (absent while unknown), sluice_qos_outcomes_dropped_total,
  // sluice_qos_actions_total{policy,action,mode,outcome} (taken, ended; cap, loop: held back, counted when it begins).
  PolicyEngine(std::shared_ptr<const PolicySet> policies, const Clock& clock, MetricsRegistry& metrics);
  ~PolicyEngine();

  // Policies that stay as they are keep their windows and step; a changed or new one starts at step 0.
  // The orders end standing actions of policies that went or changed.
  std::vector<ActionOrder> SetPolicies(std::shared_ptr<const PolicySet> policies);

  void Record(const RequestOutcome& outcome);
  // Judges every policy. Call it a few times a second.
  std::vector<ActionOrder> Evaluate(const SystemState& state);
  PolicyEffects Decide(const Request& request) const;
  // The strictest enforced `queue` action of each class; kNoClassCap: none. Changes in Evaluate and SetPolicies only.
  ClassCaps class_caps() const;

  std::vector<PolicyStatus> Status() const;  // by falling priority; those that are off as well
  std::shared_ptr<const PolicySet> policies() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
