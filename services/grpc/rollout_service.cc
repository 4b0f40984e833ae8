#include "services/grpc/rollout_service.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/status.h"
#include "services/grpc/flag_codec.h"
#include "services/grpc/operation.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr double kPercent = 100;
constexpr int kMaxEvidence = 20;

int64_t Millis(WallTime t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
}

void EncodeState(const rollout::RolloutState& state, v1::Rollout& out) {
  out.set_flag(state.flag);
  out.set_epoch(state.epoch);
  out.set_attempt(state.attempt);
  out.set_phase(std::string(rollout::PhaseName(state.phase)));
  out.set_since_ms(Millis(state.since));
  out.set_cause(state.cause);
  out.set_stage(static_cast<uint32_t>(state.stage));
  out.set_percent(state.bps / kPercent);
  for (const rollout::Transition& t : state.history) {
    v1::RolloutTransition& one = *out.add_history();
    one.set_when_ms(Millis(t.when));
    one.set_from(std::string(rollout::PhaseName(t.from)));
    one.set_to(std::string(rollout::PhaseName(t.to)));
    one.set_percent(t.bps / kPercent);
    one.set_epoch(t.epoch);
    one.set_cause(t.cause);
  }
}

void EncodeCheck(const rollout::Check& check, v1::RolloutCheck& out) {
  out.set_name(check.name);
  out.set_verdict(std::string(rollout::VerdictName(check.verdict)));
  out.set_canary(check.canary);
  out.set_baseline(check.baseline);
  out.set_ratio(check.ratio);
  out.set_low(check.low);
  out.set_high(check.high);
  out.set_e_value(check.e_value);
  out.set_e_limit(check.e_limit);
  out.set_pass_e_value(check.pass_e_value);
  out.set_pass_limit(check.pass_limit);
  out.set_samples(check.samples);
}

void EncodeReport(const rollout::RolloutReport& report, v1::Rollout& out) {
  EncodeState(report.state, out);
  for (const rollout::Stage& stage : report.spec.stages) {
    v1::RolloutStage& one = *out.add_stages();
    one.set_percent(stage.bps / kPercent);
    one.set_dwell_ms(ToMillis(stage.dwell));
    one.set_min_samples(stage.min_samples);
  }
  out.set_percent(report.serving.bps / kPercent);
  out.set_verdict(std::string(rollout::VerdictName(report.judgement.verdict)));
  out.set_verdict_cause(report.judgement.cause);
  out.set_hold(report.seen.hold);
  out.set_canary_events(report.seen.canary_events);
  out.set_baseline_events(report.seen.baseline_events);
  for (const rollout::Check& check : report.judgement.checks) EncodeCheck(check, *out.add_checks());
}

std::optional<rollout::Order> DecodeOrder(v1::OrderRolloutRequest::Order order) {
  switch (order) {
    case v1::OrderRolloutRequest::START:
      return rollout::Order::kStart;
    case v1::OrderRolloutRequest::PROMOTE:
      return rollout::Order::kPromote;
    case v1::OrderRolloutRequest::HOLD:
      return rollout::Order::kHold;
    case v1::OrderRolloutRequest::ROLLBACK:
      return rollout::Order::kRollback;
    default:
      return std::nullopt;
  }
}

}  // namespace

ServerUnaryReactor* RolloutService::ListRollouts(CallbackServerContext* context, const v1::ListRolloutsRequest*,
                                                 v1::ListRolloutsResponse* response) {
  Operation op(context, guard_, "ListRollouts", "");
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const rollout::Report report = doors_.rollout_control.Describe();
  response->set_replica(report.replica);
  response->set_leader(report.leader);
  for (const std::string& replica : report.replicas) response->add_replicas(replica);
  response->set_store_error(report.store_error);
  response->set_stale_ms(ToMillis(report.stale_for));
  for (const rollout::RolloutReport& one : report.rollouts) EncodeReport(one, *response->add_rollouts());
  return op.Finish(absl::OkStatus());
}

ServerUnaryReactor* RolloutService::OrderRollout(CallbackServerContext* context, const v1::OrderRolloutRequest* request,
                                                 v1::OrderRolloutResponse* response) {
  const Operation op(context, guard_, "Rollout" + v1::OrderRolloutRequest::Order_Name(request->order()),
                     request->flag());
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  if (const absl::Status reason = CheckReason(request->reason()); !reason.ok()) return op.Finish(reason);
  const std::optional<rollout::Order> order = DecodeOrder(request->order());
  if (!order) return op.Finish(InvalidFields({{"order", "allowed: START, PROMOTE, HOLD, ROLLBACK"}}));
  std::optional<uint64_t> expected;
  if (request->expected_epoch() != 0) expected = request->expected_epoch();
  doors_.rollout_control.Obey({.flag = request->flag(),
                               .order = *order,
                               .actor = {op.Who(), request->reason()},
                               .expected_epoch = expected,
                               .force = request->force()},
                              [op, response](const absl::StatusOr<rollout::RolloutState>& state) {
                                if (state.ok()) EncodeState(*state, *response->mutable_rollout());
                                op.Finish(state.status());
                              });
  return op.reactor;
}

ServerUnaryReactor* RolloutService::ListRolloutEvidence(CallbackServerContext* context,
                                                        const v1::ListRolloutEvidenceRequest* request,
                                                        v1::ListRolloutEvidenceResponse* response) {
  Operation op(context, guard_, "ListRolloutEvidence", request->flag());
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const int limit = request->limit() == 0 ? kMaxEvidence : request->limit();
  if (limit < 1 || limit > kMaxEvidence) return op.Finish(InvalidFields({{"limit", "allowed: 1 to 20; 0: 20"}}));
  doors_.rollout_control.Evidence(request->flag(),
                                  [op, response, limit](const absl::StatusOr<std::vector<std::string>>& evidence) {
                                    if (evidence.ok()) {
                                      const auto count = std::min(evidence->size(), static_cast<size_t>(limit));
                                      for (size_t i = 0; i < count; ++i) response->add_evidence((*evidence)[i]);
                                    }
                                    op.Finish(evidence.status());
                                  });
  return op.reactor;
}

std::unique_ptr<grpc::Service> MakeRolloutService(DoorContext doors, const CallGuard& guard) {
  return std::make_unique<RolloutService>(std::move(doors), guard);
}

}  // namespace sluice::services
