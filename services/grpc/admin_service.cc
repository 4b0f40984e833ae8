#include "services/grpc/admin_service.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "services/grpc/operation.h"
#include "services/grpc/qos_codec.h"
#include "services/grpc/request_codec.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

constexpr size_t kMaxPathBytes = 4096;
constexpr int64_t kMaxGraceMs = 86'400'000;

absl::Status CheckName(const std::string& name, const FieldLimits& limits) {
  if (!name.empty() && name.size() <= limits.max_id_bytes && IsValidUtf8(name)) return absl::OkStatus();
  return InvalidFields(
      {{"name", fmt::format("got {} bytes; allowed 1 to {}, UTF-8", name.size(), limits.max_id_bytes)}});
}

absl::Status CheckLoad(const v1::LoadModelRequest& request, const FieldLimits& limits) {
  const absl::Status name = CheckName(request.name(), limits);
  std::vector<FieldViolation> violations = GetErrorDetails(name).violations;
  const std::string& path = request.path();
  if (path.size() > kMaxPathBytes) {
    violations.push_back({"path", fmt::format("got {} bytes; allowed up to {}", path.size(), kMaxPathBytes)});
  } else if (path.find('\0') != std::string::npos || !IsValidUtf8(path)) {
    violations.push_back({"path", "holds a zero byte or is not UTF-8"});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(std::move(violations));
}

void EncodeModelNamed(const engine::ModelPool& models, const std::string& name, v1::Model& model) {
  for (const engine::ModelInfo& info : models.List()) {
    if (info.spec.name == name) return EncodeModel(info, model);
  }
}

// 0 when /proc is not there.
uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void EncodeEngine(const engine::LoadedModel& model, v1::EngineStatus& engine) {
  const engine::SchedulerStatus status = model.scheduler().Status();
  engine.set_model(model.spec().name);
  engine.set_slots(status.slots);
  engine.set_running(status.running);
  engine.set_waiting(status.waiting);
  engine.set_paused(status.paused);
  engine.set_kv_tokens_used(status.kv_tokens_used);
  engine.set_kv_tokens_total(status.kv_tokens_total);
  engine.set_steps(status.steps);
  engine.set_decode_tokens_per_second(status.decode_tokens_per_second);
  engine.set_prefill_tokens_per_second(status.prefill_tokens_per_second);
  engine.set_last_step_age_ms(ToMillis(status.last_step_age));
  engine.set_healthy(status.healthy);
}

void EncodeFlags(const flags::FlagSet& set, v1::GetStatusResponse& response) {
  const std::vector<std::string> lines = set.Describe().lines;
  for (const flags::Flag& flag : set.flags()) {
    v1::FlagStatus& status = *response.add_flags();
    status.set_key(flag.key);
    status.set_enabled(flag.enabled);
    status.set_rollout_percentage(flag.rollout_bps / 100.0);
    status.set_layer(std::string(flags::LayerName(flag.rollout_layer)));
    for (const std::string& line : lines) {
      if (line.starts_with(flag.key + ": ")) status.set_effective(line);
    }
  }
  response.set_flag_epoch(set.epoch());
}

}  // namespace

ServerUnaryReactor* AdminService::LoadModel(CallbackServerContext* context, const v1::LoadModelRequest* request,
                                            v1::LoadModelResponse* response) {
  Operation op(context, guard_, "LoadModel", request->name());
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckLoad(*request, limits_);
  if (!valid.ok()) return op.Finish(valid);
  ServerUnaryReactor* reactor = op.reactor;
  doors_.models.Load(request->name(), request->path(), request->pin(),
                     [this, op = std::move(op), request, response](absl::StatusOr<engine::ModelHandle> model) {
                       const absl::Status status = model.status();
                       if (status.ok()) *model = nullptr;  // not ours to keep: the next call may unload it
                       response->set_load_ms(ToMillis(doors_.clock.Now() - op.call.arrival));
                       EncodeModelNamed(doors_.models, request->name(), *response->mutable_model());
                       op.Finish(status);
                     });
  return reactor;
}

ServerUnaryReactor* AdminService::UnloadModel(CallbackServerContext* context, const v1::UnloadModelRequest* request,
                                              v1::UnloadModelResponse*) {
  const Operation op(context, guard_, "UnloadModel", request->name());
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckName(request->name(), limits_);
  return op.Finish(valid.ok() ? doors_.models.Unload(request->name()) : valid);
}

ServerUnaryReactor* AdminService::PinModel(CallbackServerContext* context, const v1::PinModelRequest* request,
                                           v1::PinModelResponse* response) {
  const Operation op(context, guard_, request->pinned() ? "PinModel" : "UnpinModel", request->name());
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  const absl::Status valid = CheckName(request->name(), limits_);
  if (!valid.ok()) return op.Finish(valid);
  const absl::Status status = doors_.models.Pin(request->name(), request->pinned());
  if (status.ok()) EncodeModelNamed(doors_.models, request->name(), *response->mutable_model());
  return op.Finish(status);
}

ServerUnaryReactor* AdminService::GetStatus(CallbackServerContext* context, const v1::GetStatusRequest*,
                                            v1::GetStatusResponse* response) {
  Operation op(context, guard_, "GetStatus", "");
  op.routine = true;
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  response->set_version(SLUICE_VERSION);
  response->set_state(doors_.state());
  response->set_uptime_s(ToSeconds(doors_.clock.Now() - started_));
  response->set_admission_running(doors_.admission.running());
  response->set_admission_queued(doors_.admission.queued());
  for (const engine::ModelHandle& model : doors_.models.Loaded()) EncodeEngine(*model, *response->add_engines());
  for (const auto& entry : doors_.breakers.List()) EncodeBreaker(entry, *response->add_breakers());
  EncodeFlags(*doors_.gate.snapshot(), *response);
  response->set_rss_bytes(ResidentBytes());
  return op.Finish(absl::OkStatus());
}

ServerUnaryReactor* AdminService::Drain(CallbackServerContext* context, const v1::DrainRequest* request,
                                        v1::DrainResponse*) {
  const Operation op(context, guard_, "Drain", fmt::format("grace_ms={}", request->grace_ms()));
  if (!op.permitted.ok()) return op.Finish(op.permitted);
  if (request->grace_ms() < 0 || request->grace_ms() > kMaxGraceMs) {
    return op.Finish(InvalidFields(
        {{"grace_ms", fmt::format("got {}; allowed 0 (as configured) to {}", request->grace_ms(), kMaxGraceMs)}}));
  }
  doors_.request_drain(std::chrono::milliseconds(request->grace_ms()));
  return op.Finish(absl::OkStatus());
}

std::unique_ptr<grpc::Service> MakeAdminService(DoorContext doors, const CallGuard& guard) {
  return std::make_unique<AdminService>(std::move(doors), guard);
}

}  // namespace sluice::services
