#include "qos/qos_engine.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "qos/policy_bucket.h"

namespace sluice::qos {
namespace {

// The same request is refused by every replica under the same pressure, and let in again when the pressure falls.
double Draw(std::string_view request_id) { return static_cast<double>(StableHash(request_id) >> 11) * 0x1p-53; }

absl::Status Shed(const Request& request, const PolicyEffects::Actions& actions) {
  // The policy steps down after its recovery time at the earliest; 1 s is a guess on the short side.
  return MakeError(
      Reason::kPolicyShed,
      fmt::format("policy '{}' sheds class {} at present", actions.shed_by, QosClassName(request.qos_class)),
      {.retry_after = std::chrono::seconds(1), .metadata = {{"policy", std::string(actions.shed_by)}}});
}

}  // namespace

uint64_t QosEngine::Admit(const Request& request, const EngineLoad& load, PolicyUse use, Grant& grant, Callback tell) {
  grant.use = use;
  grant.max_tokens = request.max_tokens;
  const auto refuse = [&](const absl::Status& status) {
    grant.explanation = ExplainRejected(status);
    Record(request, load, grant, ReasonOf(status));
    tell(status);
    return uint64_t{0};
  };
  if (absl::Status s = parts_.overload.Admit(request.qos_class, Draw(request.request_id)); !s.ok()) return refuse(s);
  if (absl::Status s = parts_.retries.Admit(request.previous_attempts); !s.ok()) return refuse(s);
  if (use != PolicyUse::kOff) grant.effects = parts_.policies.Decide(request);
  Request granted = request;
  if (const PolicyEffects::Actions* actions = grant.actions()) {
    if (!actions->shed_by.empty()) return refuse(Shed(request, *actions));
    if (!actions->max_tokens_by.empty() && actions->max_tokens < request.max_tokens) {
      granted.max_tokens = grant.max_tokens = actions->max_tokens;
      grant.shortened = true;
    }
  }
  absl::StatusOr<Quotas::Reservation> reservation = parts_.quotas.Reserve(granted);
  if (!reservation.ok()) return refuse(reservation.status());
  grant.reservation = *std::move(reservation);
  return parts_.admission.Admit(granted, &load,
                                [this, request, load, &grant, tell = std::move(tell)](Answer answer) mutable {
                                  if (answer.ok()) {
                                    grant.explanation = ExplainAdmitted(*answer);
                                    if (grant.shortened)
                                      grant.explanation += fmt::format(";max_tokens={}", grant.max_tokens);
                                    grant.permit.emplace(*std::move(answer));
                                    Record(request, load, grant, "admitted");
                                    return tell(absl::OkStatus());
                                  }
                                  const absl::Status status = answer.status();
                                  grant.explanation = ExplainRejected(status);
                                  grant.reservation = {};
                                  Record(request, load, grant, ReasonOf(status));
                                  tell(status);
                                });
}

void QosEngine::Record(const Request& request, const EngineLoad& load, const Grant& grant, std::string_view verdict) {
  DecisionRecord record{.at = parts_.clock.Now(),
                        .wall = parts_.clock.WallNow(),
                        .request_id = std::string(request.request_id),
                        .tenant = std::string(request.tenant),
                        .model = std::string(request.model),
                        .qos_class = request.qos_class,
                        .key_hash = request.key_hash,
                        .prompt_tokens = request.prompt_tokens,
                        .max_tokens = request.max_tokens,
                        .prompt_bytes = request.prompt_bytes,
                        .ttft_objective = request.ttft_objective,
                        .load = load,
                        .use = grant.use,
                        .verdict = std::string(verdict),
                        .enforced = ExplainActions(grant.effects.enforced),
                        .dry_run = ExplainActions(grant.effects.dry_run),
                        .granted_max_tokens = grant.max_tokens,
                        .epoch = grant.effects.epoch};
  if (request.deadline != kInfiniteFuture) record.time_left = request.deadline - record.at;
  parts_.decisions.Add(std::move(record));
}

void QosEngine::Settle(Grant& grant, const End& end) {
  grant.reservation.Settle(end.prompt_tokens, end.sample.output_tokens);
  if (grant.permit.has_value())
    grant.permit->Settle(end.outcome, end.sample.output_tokens, end.sample.ttft.value_or(Duration::zero()));
  parts_.policies.Record(end.sample);
  OutcomeRecord record{.request_id = std::string(end.request_id),
                       .tenant = std::string(end.sample.tenant),
                       .model = std::string(end.sample.model),
                       .outcome = end.sample};
  record.outcome.tenant = record.outcome.model = {};
  parts_.decisions.Add(std::move(record));
}

std::vector<ActionOrder> QosEngine::Evaluate(const SystemState& state) {
  parts_.decisions.Add(JudgementRecord{.at = parts_.clock.Now(), .state = state});
  return parts_.policies.Evaluate(state);
}

}  // namespace sluice::qos
