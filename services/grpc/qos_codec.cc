#include "services/grpc/qos_codec.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "services/grpc/flag_codec.h"
#include "services/qos_control.h"

namespace sluice::services {
namespace {

constexpr int kMaxDecisions = 1000;
constexpr double kMaxMs = 86'400'000;

std::string_view StateName(qos::ObjectiveState state) {
  switch (state) {
    case qos::ObjectiveState::kUnknown:
      return "unknown";
    case qos::ObjectiveState::kMet:
      return "met";
    case qos::ObjectiveState::kViolated:
      return "violated";
  }
  return "unknown";
}

void CheckText(const char* field, const std::string& text, const FieldLimits& limits,
               std::vector<FieldViolation>& violations) {
  if (text.size() <= limits.max_id_bytes && IsValidUtf8(text)) return;
  violations.push_back({field, fmt::format("got {} bytes; allowed up to {}, UTF-8", text.size(), limits.max_id_bytes)});
}

void CheckMs(const char* field, double ms, std::vector<FieldViolation>& violations) {
  if (ms >= 0 && ms <= kMaxMs) return;
  violations.push_back({field, fmt::format("got {}; allowed 0 to {}", ms, kMaxMs)});
}

absl::Status Verdict(std::vector<FieldViolation> violations) {
  return violations.empty() ? absl::OkStatus() : InvalidFields(std::move(violations));
}

}  // namespace

void EncodePolicy(const qos::Policy& policy, const qos::PolicyStatus& status, v1::PolicyStatus& out) {
  out.set_id(policy.id);
  out.set_description(policy.description);
  out.set_mode(std::string(qos::PolicyModeName(policy.mode)));
  out.set_enforced_percent(policy.enforced_percent);
  out.set_step(status.step);
  for (const qos::Action& action : policy.ladder) out.add_ladder(DescribeAction(action));
  out.set_held_by(status.held_by);
  out.set_step_age_ms(ToMillis(status.since));
  out.set_actions(status.actions);
  for (size_t i = 0; i < status.objectives.size(); ++i) {
    const auto& objective = status.objectives[i];
    v1::ObjectiveStatus& o = *out.add_objectives();
    o.set_metric(objective.metric);
    o.set_state(std::string(StateName(objective.state)));
    o.set_value(objective.value);
    o.set_threshold(objective.threshold);
    o.set_samples(objective.samples);
    if (i < policy.objectives.size()) o.set_severity(std::string(qos::SeverityName(policy.objectives[i].severity)));
  }
}

void EncodeDecision(const qos::DecisionRecord& r, v1::Decision& out) {
  out.set_id(r.id);
  out.set_time_ms(std::chrono::duration_cast<std::chrono::milliseconds>(r.wall.time_since_epoch()).count());
  out.set_request_id(r.request_id);
  out.set_tenant(r.tenant);
  out.set_model(r.model);
  out.set_priority_class(std::string(qos::QosClassName(r.qos_class)));
  out.set_prompt_tokens(r.prompt_tokens);
  out.set_max_tokens(r.max_tokens);
  out.set_time_left_ms(r.time_left == Duration::max() ? -1 : ToMillis(r.time_left));
  out.set_ttft_objective_ms(ToMillis(r.ttft_objective));
  out.set_verdict(r.verdict);
  out.set_enforced(r.enforced);
  out.set_dry_run(r.dry_run);
  out.set_granted_max_tokens(r.granted_max_tokens);
  out.set_epoch(r.epoch);
  out.set_policy_use(std::string(qos::PolicyUseName(r.use)));
  v1::EngineLoadStatus& load = *out.mutable_load();
  load.set_slots(r.load.slots);
  load.set_running(r.load.running);
  load.set_waiting(r.load.waiting);
  load.set_uncomputed_prompt_tokens(r.load.uncomputed_prompt_tokens);
  load.set_prefill_tokens_per_second(r.load.prefill_tokens_per_second);
  load.set_decode_tokens_per_second(r.load.decode_tokens_per_second);
  load.set_kv_usage(r.load.kv_usage);
}

void EncodeBreaker(const qos::BreakerRegistry::Entry& entry, v1::BreakerStatus& breaker) {
  breaker.set_model(entry.model);
  breaker.set_pipeline(entry.pipeline);
  breaker.set_state(std::string(qos::BreakerStateName(entry.snapshot.state)));
  breaker.set_failure_rate(entry.snapshot.failure_rate);
  breaker.set_slow_call_rate(entry.snapshot.slow_call_rate);
  breaker.set_buffered_calls(entry.snapshot.buffered_calls);
}

absl::Status CheckDecisionQuery(const v1::ListDecisionsRequest& request, const FieldLimits& limits) {
  std::vector<FieldViolation> violations;
  if (request.limit() < 0 || request.limit() > kMaxDecisions) {
    violations.push_back({"limit", fmt::format("got {}; allowed 1 to {}", request.limit(), kMaxDecisions)});
  }
  CheckText("tenant", request.tenant(), limits, violations);
  CheckText("model", request.model(), limits, violations);
  CheckText("verdict", request.verdict(), limits, violations);
  CheckText("policy", request.policy(), limits, violations);
  CheckText("request_id", request.request_id(), limits, violations);
  return Verdict(std::move(violations));
}

absl::Status CheckExplain(const v1::ExplainQosRequest& request, const FieldLimits& limits) {
  std::vector<FieldViolation> violations;
  CheckText("tenant", request.tenant(), limits, violations);
  CheckText("user", request.user(), limits, violations);
  CheckText("model", request.model(), limits, violations);
  if (!request.priority_class().empty() && !qos::ParseQosClass(request.priority_class())) {
    violations.push_back({"priority_class", fmt::format("got '{}'; allowed system, interactive, standard, batch",
                                                        ReplaceInvalidUtf8(request.priority_class()))});
  }
  if (request.prompt_tokens() < 0) violations.push_back({"prompt_tokens", "allowed from 0"});
  if (request.max_tokens() < 0) violations.push_back({"max_tokens", "allowed from 0"});
  CheckMs("deadline_ms", request.deadline_ms(), violations);
  CheckMs("ttft_objective_ms", request.ttft_objective_ms(), violations);
  return Verdict(std::move(violations));
}

absl::Status CheckSetBreaker(const v1::SetBreakerRequest& request, const FieldLimits& limits) {
  std::vector<FieldViolation> violations = GetErrorDetails(CheckReason(request.reason())).violations;
  CheckText("model", request.model(), limits, violations);
  CheckText("pipeline", request.pipeline(), limits, violations);
  if (!qos::ParseBreakerState(request.state())) {
    violations.push_back(
        {"state", fmt::format("got '{}'; allowed closed, open, half_open, disabled, forced_open, metrics_only",
                              ReplaceInvalidUtf8(request.state().substr(0, limits.max_id_bytes)))});
  }
  return Verdict(std::move(violations));
}

}  // namespace sluice::services
