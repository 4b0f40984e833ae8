#include "services/grpc/qos_service.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "base/status.h"
#include "qos/policy_bucket.h"
#include "qos/prediction.h"
#include "services/grpc/operation.h"
#include "services/grpc/qos_codec.h"
#include "services/qos_facts.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr int kDefaultDecisions = 20;

std::string Actions(const qos::PolicyEffects::Actions& actions) {
  const std::string text = qos::ExplainActions(actions);
  return text.empty() ? "nothing" : text;
}

}  // namespace

ServerUnaryReactor* QosService::GetQosStatus(CallbackServerContext* context, const v1::GetQosStatusRequest*,
                                             v1::GetQosStatusResponse* response) {
  Operation op(context, guard_, "GetQosStatus", "");
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const auto policies = doors_.policies.policies();
  const std::vector<qos::PolicyStatus> states = doors_.policies.Status();
  response->set_epoch(policies->epoch());
  for (const qos::Policy& policy : policies->policies()) {
    const auto state = std::find_if(states.begin(), states.end(), [&](const auto& s) { return s.id == policy.id; });
    if (state != states.end()) EncodePolicy(policy, *state, *response->add_policies());
  }
  const qos::Admission::Load load = doors_.admission.load();
  for (int c = 0; c < qos::kQosClassCount; ++c) {
    v1::ClassStatus& status = *response->add_classes();
    status.set_priority_class(std::string(qos::QosClassName(static_cast<qos::QosClass>(c))));
    status.set_queued(load.queued[static_cast<size_t>(c)]);
  }
  response->set_running(load.running);
  response->set_concurrency_limit(load.concurrency_limit);
  response->set_max_concurrent(load.max_concurrent);
  for (const auto& entry : doors_.breakers.List()) EncodeBreaker(entry, *response->add_breakers());
  const QosControl::Status control = doors_.qos_control.status();
  for (int r = 0; r < qos::kResourceCount; ++r) {
    v1::ResourcePressure& pressure = *response->add_pressures();
    pressure.set_resource(std::string(qos::ResourceName(static_cast<qos::Resource>(r))));
    pressure.set_pressure(control.pressure[static_cast<size_t>(r)]);
  }
  response->set_file_error(control.file_error);
  return op.Finish(absl::OkStatus());
}

ServerUnaryReactor* QosService::ListDecisions(CallbackServerContext* context, const v1::ListDecisionsRequest* request,
                                              v1::ListDecisionsResponse* response) {
  Operation op(context, guard_, "ListDecisions", "");
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckDecisionQuery(*request, {});
  if (!valid.ok()) return op.Finish(valid);
  const auto limit = static_cast<size_t>(request->limit() == 0 ? kDefaultDecisions : request->limit());
  for (const qos::DecisionRecord& record : doors_.decisions.Newest({.tenant = request->tenant(),
                                           .model = request->model(),
                                           .verdict = request->verdict(),
                                           .policy = request->policy(),
                                           .request_id = request->request_id()},
                                                                   limit)) {
    EncodeDecision(record, *response->add_decisions());
  }
  return op.Finish(absl::OkStatus());
}

// Looks at the same things in the same order as QosEngine::Admit; takes nothing.
ServerUnaryReactor* QosService::ExplainQos(CallbackServerContext* context, const v1::ExplainQosRequest* request,
                                           v1::ExplainQosResponse* response) {
  Operation op(context, guard_, "ExplainQos", request->tenant());
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckExplain(*request, {});
  if (!valid.ok()) return op.Finish(valid);
  const auto model = doors_.models.Acquire(request->model());
  if (!model.ok()) return op.Finish(model.status());

  const MonoTime now = doors_.clock.Now();
  qos::Request asked{.request_id = op.call.request_id,
                     .tenant = request->tenant(),
                     .model = (*model)->spec().name,
                     .key_hash = request->user().empty() ? 0 : qos::StableHash(request->user()),
                     .qos_class = qos::ParseQosClass(request->priority_class()).value_or(qos::QosClass::kStandard),
                     .prompt_tokens = request->prompt_tokens(),
                     .max_tokens = request->max_tokens(),
                     .arrival = now,
                     .ttft_objective = FromMillis(request->ttft_objective_ms())};
  if (request->deadline_ms() > 0) asked.deadline = now + FromMillis(request->deadline_ms());
  const flags::Decision flag = doors_.gate.snapshot()->Evaluate("qos_policy", {.targeting_key = request->user(),
                                                                               .tenant = request->tenant(),
                                                                               .user = request->user(),
                                                                               .model = asked.model,
                                                                               .now = doors_.clock.WallNow()});
  const qos::PolicyUse use = PolicyUseOf(flag);
  std::vector<std::string> lines = {
      fmt::format("flag qos_policy: {} (policies: {})", flags::Explain(flag), qos::PolicyUseName(use))};
  std::string verdict = "admitted";
  const qos::PolicyEffects effects = doors_.policies.Decide(asked);
  lines.push_back(
      fmt::format("policies in force: {}; in dry_run: {}", Actions(effects.enforced), Actions(effects.dry_run)));
  if (use == qos::PolicyUse::kEnforce) {
    if (!effects.enforced.shed_by.empty()) verdict = "POLICY_SHED";
    if (!effects.enforced.max_tokens_by.empty())
      asked.max_tokens = std::min(asked.max_tokens, effects.enforced.max_tokens);
  }
  const absl::Status quota = doors_.quotas.Reserve(asked).status();  // given back at once
  lines.push_back(fmt::format("quota: {}", quota.ok() ? "enough" : std::string(quota.message())));
  if (!quota.ok() && verdict == "admitted") verdict = ReasonOf(quota);

  const qos::EngineLoad load = EngineLoadOf((*model)->scheduler().Status(), asked.qos_class);
  const qos::Admission::Load admission = doors_.admission.load();
  lines.push_back(fmt::format("admission: {} of {} permits in use (at most {})", admission.running,
                              admission.concurrency_limit, admission.max_concurrent));
  const absl::Status admitted = doors_.admission.Preview(asked, &load);
  lines.push_back(fmt::format("now: {}", admitted.ok() ? "would be let in or wait" : std::string(admitted.message())));
  if (!admitted.ok() && verdict == "admitted") verdict = ReasonOf(admitted);
  if (const auto predicted = qos::Predict(load, asked.prompt_tokens, asked.max_tokens)) {
    const double correction = admission.ttft_correction[static_cast<size_t>(asked.qos_class)];
    const double ttft = correction * ToMillis(predicted->ttft);
    lines.push_back(
        fmt::format("prediction: first token after {:.0f} ms, end after {:.0f} ms ({:.0f} prompt tokens/s, {} "
                    "prompt tokens ahead, {:.2f} times as late as computed, as learnt)",
                    ttft, ttft + ToMillis(predicted->finish - predicted->ttft), load.prefill_tokens_per_second,
                    load.uncomputed_prompt_tokens, correction));
  } else {
    lines.emplace_back("prediction: none, the engine has not measured its rates yet");
  }
  response->set_verdict(verdict);
  response->set_text(fmt::format("{}\n{}", verdict, absl::StrJoin(lines, "\n")));
  return op.Finish(absl::OkStatus());
}

ServerUnaryReactor* QosService::SetBreaker(CallbackServerContext* context, const v1::SetBreakerRequest* request,
                                           v1::SetBreakerResponse* response) {
  const Operation op(context, guard_, "SetBreaker",
                     fmt::format("{}/{}={}", request->model(), request->pipeline(), request->state()));
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckSetBreaker(*request, {});
  if (!valid.ok()) return op.Finish(valid);
  std::string model = request->model();
  if (model.empty()) {
    for (const engine::ModelInfo& info : doors_.models.List()) {
      if (info.is_default) model = info.spec.name;
    }
  }
  std::vector<std::string> known;
  for (const auto& entry : doors_.breakers.List()) {
    if (entry.model != model || entry.pipeline != request->pipeline()) {
      known.push_back(entry.model + "/" + entry.pipeline);
      continue;
    }
    doors_.breakers.Get(model, entry.pipeline)
        .ForceState(*qos::ParseBreakerState(request->state()), {.who = op.Who(), .why = request->reason()});
    for (const auto& after : doors_.breakers.List()) {
      if (after.model == model && after.pipeline == entry.pipeline) EncodeBreaker(after, *response->mutable_breaker());
    }
    return op.Finish(absl::OkStatus());
  }
  return op.Finish(MakeError(Reason::kNotFound,
                             fmt::format("no breaker is called {}/{}; there are: {} (one is made by the first request)",
                                         model, request->pipeline(), absl::StrJoin(known, ", "))));
}

std::unique_ptr<grpc::Service> MakeQosService(DoorContext doors, const CallGuard& guard) {
  return std::make_unique<QosService>(std::move(doors), guard);
}

}  // namespace sluice::services
