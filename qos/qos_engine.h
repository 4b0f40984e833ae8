// QoS in one place: what policies say about a request, what its tenant may still take, and when it may run; and what
// became of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "qos/admission.h"
#include "qos/decision_log.h"
#include "qos/overload_guard.h"
#include "qos/policy_engine.h"
#include "qos/quotas.h"
#include "qos/request.h"
#include "qos/retry_budget.h"

namespace sluice::qos {

// What a request was given. Lives as long as its request; dropping it gives back what it holds.
struct Grant {
  std::optional<Permit> permit;
  Quotas::Reservation reservation;
  PolicyEffects effects;
  PolicyUse use = PolicyUse::kOff;
  int max_tokens = 0;       // as asked, or what a policy cut it to
  bool shortened = false;   // a policy cut it
  std::string explanation;  // for trailer and log: "admitted;class=standard;queue_ms=0;max_tokens=64:slow-answers"

  // What is in force for this request.
  const PolicyEffects::Actions* actions() const { return use == PolicyUse::kEnforce ? &effects.enforced : nullptr; }
};

// Thread-safety: thread-safe. Everything referenced outlives it.
class QosEngine {
 public:
  struct Parts {
    PolicyEngine& policies;
    Quotas& quotas;
    Admission& admission;
    OverloadGuard& overload;
    RetryBudget& retries;
    DecisionLog& decisions;
    const Clock& clock;
  };
  explicit QosEngine(const Parts& parts) : parts_(parts) {}

  // Answers exactly once, as Admission::Admit does, with `grant` complete; grant and what the request's views show live
  // until then. Refusals: OVERLOADED, RETRY_BUDGET, POLICY_SHED, QUOTA_*, and Admission's. Returns a ticket for Cancel;
  // 0 when already answered.
  using Callback = absl::AnyInvocable<void(const absl::Status&)>;
  uint64_t Admit(const Request& request, const EngineLoad& load, PolicyUse use, Grant& grant, Callback answer);
  void Cancel(uint64_t ticket) { parts_.admission.Cancel(ticket); }

  // The end of a request that was admitted: settles permit and quota, and tells the policies.
  struct End {
    std::string_view request_id;
    Outcome outcome = Outcome::kFailure;
    RequestOutcome sample;
    int prompt_tokens = 0;  // computed
  };
  void Settle(Grant& grant, const End& end);

  // Judges the policies; returns what is to be done.
  std::vector<ActionOrder> Evaluate(const SystemState& state);

 private:
  void Record(const Request& request, const EngineLoad& load, const Grant& grant, std::string_view verdict);

  const Parts parts_;
};

}  // namespace sluice::qos
