#include "services/grpc/flag_service.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>

#include <utility>

#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/strings.h"
#include "services/grpc/flag_codec.h"
#include "services/grpc/flag_watch.h"
#include "services/grpc/operation.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr int kMaxWatchers = 64;

std::vector<std::string> StaleLayers(const flags::FlagSources& sources) {
  std::vector<std::string> stale;
  for (const auto& [layer, state] : sources.layers()) {
    if (state.stale) stale.emplace_back(flags::LayerName(layer));
  }
  return stale;
}

absl::Status UnknownFlag(const std::string& flag, const flags::FlagSet& set) {
  std::vector<std::string> names;
  for (const flags::Flag& f : set.flags()) names.push_back(f.key);
  return MakeError(Reason::kFlagNotFound,
                   fmt::format("no flag is called \"{}\"; there are: {}", flag, absl::StrJoin(names, ", ")));
}

}  // namespace

FlagService::FlagService(DoorContext doors, const CallGuard& guard)
    : doors_(std::move(doors)), guard_(guard), watchers_(std::make_shared<std::atomic<int>>(0)) {}

ServerUnaryReactor* FlagService::Evaluate(CallbackServerContext* context, const v1::EvaluateFlagRequest* request,
                                          v1::EvaluateFlagResponse* response) {
  Operation op(context, guard_, "EvaluateFlag", request->flag(), /*anybody=*/true);
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckEvaluation(request->flag(), request->context());
  if (!valid.ok()) return op.Finish(valid);
  const DescribedContext described(request->context(), doors_.clock.WallNow());
  const auto set = doors_.gate.snapshot();
  const flags::Decision decision = set->Evaluate(request->flag(), described.context());
  if (decision.reason == flags::Reason::kUnknownFlag) doors_.gate.CountNotFound("grpc");
  EncodeDecision(decision, *response);
  return op.Finish(absl::OkStatus());
}

ServerUnaryReactor* FlagService::Explain(CallbackServerContext* context, const v1::ExplainFlagRequest* request,
                                         v1::ExplainFlagResponse* response) {
  Operation op(context, guard_, "ExplainFlag", request->flag());
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckEvaluation(request->flag(), request->context());
  if (!valid.ok()) return op.Finish(valid);
  const auto set = doors_.gate.snapshot();
  if (set->Find(request->flag()) == nullptr) return op.Finish(UnknownFlag(request->flag(), *set));
  const DescribedContext described(request->context(), doors_.clock.WallNow());
  flags::Explanation explanation = set->ExplainFor(request->flag(), described.context());
  explanation.stale = StaleLayers(doors_.flag_sources);
  EncodeExplanation(explanation, *response);
  return op.Finish(absl::OkStatus());
}

ServerUnaryReactor* FlagService::List(CallbackServerContext* context, const v1::ListFlagsRequest*,
                                      v1::ListFlagsResponse* response) {
  Operation op(context, guard_, "ListFlags", "");
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  EncodeFlagList(*doors_.gate.snapshot(), StaleLayers(doors_.flag_sources), *response);
  return op.Finish(absl::OkStatus());
}

grpc::ServerWriteReactor<v1::FlagEvent>* FlagService::Watch(CallbackServerContext* context,
                                                            const v1::WatchFlagsRequest*) {
  auto call = guard_.Open(*context);
  absl::Status permitted = call.ok() ? CallGuard::RequireAdmin(*call) : call.status();
  if (permitted.ok() && watchers_->load() >= kMaxWatchers) {
    permitted =
        MakeError(Reason::kTooManyWatchers, fmt::format("{} watchers are open, which is the limit", kMaxWatchers),
                  {.retry_after = std::chrono::seconds(10)});
  }
  return WatchFlags(doors_.gate, permitted, *context, call.ok() ? call->request_id : "", watchers_);
}

ServerUnaryReactor* FlagService::Set(CallbackServerContext* context, const v1::SetFlagRequest* request,
                                     v1::SetFlagResponse* response) {
  const Operation op(context, guard_, "SetFlag", request->flag());
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  auto values = DecodeSet(*request, op.Who());
  if (!values.ok()) return op.Finish(values.status());
  const auto set = doors_.gate.snapshot();
  if (set->Find(request->flag()) == nullptr) return op.Finish(UnknownFlag(request->flag(), *set));
  std::optional<uint64_t> expected;
  if (request->expected_epoch() != 0) expected = request->expected_epoch();
  doors_.flag_control.Set(request->flag(), *std::move(values), {op.Who(), request->reason()}, expected,
                          [op, response](const absl::StatusOr<FlagOutcome>& outcome) {
                            if (outcome.ok()) {
                              response->set_epoch(outcome->epoch);
                              response->set_kept(outcome->kept);
                              EncodeChanges(outcome->changes, *response->mutable_changes());
                              for (const std::string& inert : outcome->inert) response->add_inert(inert);
                            }
                            op.Finish(outcome.status());
                          });
  return op.reactor;
}

ServerUnaryReactor* FlagService::EmergencyStop(CallbackServerContext* context, const v1::EmergencyStopRequest* request,
                                               v1::EmergencyStopResponse* response) {
  const Operation op(context, guard_, request->on() ? "EmergencyStop" : "EmergencyEnd",
                     v1::EmergencyStopRequest::Switch_Name(request->switch_()));
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status reason = CheckReason(request->reason());
  if (!reason.ok()) return op.Finish(reason);
  const bool kill = request->switch_() == v1::EmergencyStopRequest::KILL_SWITCH;
  if (!kill && request->switch_() != v1::EmergencyStopRequest::ROLLBACK_TO_BASELINE) {
    return op.Finish(InvalidFields({{"switch", "allowed: KILL_SWITCH, ROLLBACK_TO_BASELINE"}}));
  }
  doors_.flag_control.SetEmergency(kill ? &EmergencySwitches::kill_switch : &EmergencySwitches::rollback_to_baseline,
                                   request->on(), {op.Who(), request->reason()},
                                   [op, response](const absl::StatusOr<FlagOutcome>& outcome) {
                                     if (outcome.ok()) {
                                       response->set_epoch(outcome->epoch);
                                       response->set_kept(outcome->kept);
                                       for (const std::string& layer : outcome->inert) response->add_still_on(layer);
                                     }
                                     op.Finish(outcome.status());
                                   });
  return op.reactor;
}

std::unique_ptr<grpc::Service> MakeFlagService(DoorContext doors, const CallGuard& guard) {
  return std::make_unique<FlagService>(std::move(doors), guard);
}

}  // namespace sluice::services
