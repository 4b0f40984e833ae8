// inference.GRPCInferenceService. ModelStreamInfer is in oip_stream, what an inference does in oip_run.
#include <fmt/format.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "inference/grpc_service.grpc.pb.h"
#include "services/grpc/doors.h"
#include "services/grpc/oip_metadata.h"
#include "services/grpc/oip_run.h"
#include "services/grpc/oip_stream.h"
#include "services/grpc/status_mapping.h"
#include "services/prompt.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// For calls that are answered before the handler returns.
ServerUnaryReactor* Answer(CallbackServerContext& context, const absl::Status& status, const std::string& request_id) {
  ServerUnaryReactor* reactor = context.DefaultReactor();
  reactor->Finish(ToGrpcStatus(status, context, request_id));
  return reactor;
}

absl::Status CheckRepository(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return InvalidFields({{"repository_name", fmt::format("got \"{}\"; there is one repository, without a name", name)}});
}

// A load or unload on its way to an answer and the same log line that AdminService writes. Copyable; Finish once.
struct AdminCall {
  AdminCall(CallbackServerContext& c, const CallGuard& guard, std::string a, std::string m)
      : context(&c), reactor(c.DefaultReactor()), opened(guard.Open(c)), action(std::move(a)), model(std::move(m)) {}

  // Parameters are refused, but for `allowed`.
  template <typename Parameters>
  absl::Status Check(const std::string& repository, const Parameters& parameters, std::string_view allowed) const {
    SLUICE_RETURN_IF_ERROR(opened.status());
    SLUICE_RETURN_IF_ERROR(CallGuard::RequireAdmin(*opened));
    SLUICE_RETURN_IF_ERROR(CheckRepository(repository));
    for (const auto& [name, value] : parameters) {
      if (name == allowed) continue;
      return InvalidFields({{"parameters." + name, "not supported; models are configured on the server"}});
    }
    return absl::OkStatus();
  }

  ServerUnaryReactor* Finish(const absl::Status& status) const {
    const CallContext call = opened.ok() ? *opened : CallContext();
    Log(LogLevel::kInfo, "admin",
        {{"request_id", call.request_id},
         {"key", call.caller.key_name},
         {"peer", call.peer},
         {"action", action},
         {"target", model},
         {"result", ReasonOf(status)}});
    reactor->Finish(ToGrpcStatus(status, *context, call.request_id));
    return reactor;
  }

  CallbackServerContext* context;
  ServerUnaryReactor* reactor;
  absl::StatusOr<CallContext> opened;
  std::string action, model;
};

// ModelInfer. Kept by itself until OnDone, and by the wake-up that is still to come.
class InferReactor final : public ServerUnaryReactor, public std::enable_shared_from_this<InferReactor> {
 public:
  static ServerUnaryReactor* Begin(OipShared& shared, CallbackServerContext& context, CallContext call,
                                   OipRequest request, inference::ModelInferResponse& response) {
    const auto reactor = std::make_shared<InferReactor>(shared, context, std::move(call), std::move(request), response);
    reactor->self_ = reactor;
    reactor->run_->Start(reactor->call_, [reactor] { reactor->Step(); });
    return reactor.get();
  }

  InferReactor(OipShared& shared, CallbackServerContext& context, CallContext call, OipRequest request,
               inference::ModelInferResponse& response)
      : context_(context),
        call_(std::move(call)),
        response_(response),
        run_(std::make_shared<OipRun>(std::move(request), shared)) {}

  void OnCancel() override { run_->Cancel(); }
  void OnDone() override { const std::shared_ptr<InferReactor> last_use = std::move(self_); }

 private:
  void Step() {
    const OipRun::Got got = run_->Take(response_);
    if (got == OipRun::Got::kNothing || got == OipRun::Got::kPart) {
      return run_->Arm([self = shared_from_this()] { self->Step(); });
    }
    AddTrailers(run_->info(), context_);
    Finish(ToGrpcStatus(run_->status(), context_, call_.request_id, /*tokens_emitted=*/0));
  }

  CallbackServerContext& context_;
  const CallContext call_;
  inference::ModelInferResponse& response_;
  const std::shared_ptr<OipRun> run_;
  std::shared_ptr<InferReactor> self_;
};

class OipService final : public inference::GRPCInferenceService::CallbackService {
 public:
  OipService(DoorContext doors, const CallGuard& guard) : shared_(std::move(doors), guard) {}

  // Live and ready are for probes, which have no token.
  ServerUnaryReactor* ServerLive(CallbackServerContext* context, const inference::ServerLiveRequest*,
                                 inference::ServerLiveResponse* response) override {
    response->set_live(true);
    return Answer(*context, absl::OkStatus(), "");
  }

  ServerUnaryReactor* ServerReady(CallbackServerContext* context, const inference::ServerReadyRequest*,
                                  inference::ServerReadyResponse* response) override {
    response->set_ready(shared_.doors.state() == "ready");
    return Answer(*context, absl::OkStatus(), "");
  }

  ServerUnaryReactor* ModelReady(CallbackServerContext* context, const inference::ModelReadyRequest* request,
                                 inference::ModelReadyResponse* response) override {
    return Guarded(*context, [&](const CallContext& call) {
      const auto model = Find(call, request->name(), request->version());
      response->set_ready(model.ok() && model->state == engine::ModelState::kReady);
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* ServerMetadata(CallbackServerContext* context, const inference::ServerMetadataRequest*,
                                     inference::ServerMetadataResponse* response) override {
    return Guarded(*context, [&](const CallContext&) {
      EncodeServerMetadata(*response);
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* ModelMetadata(CallbackServerContext* context, const inference::ModelMetadataRequest* request,
                                    inference::ModelMetadataResponse* response) override {
    return Guarded(*context, [&](const CallContext& call) -> absl::Status {
      SLUICE_ASSIGN_OR_RETURN(const auto model, Find(call, request->name(), request->version()));
      EncodeModelMetadata(model, MakesEmbeddings(model), *response);
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* ModelConfig(CallbackServerContext* context, const inference::ModelConfigRequest* request,
                                  inference::ModelConfigResponse* response) override {
    return Guarded(*context, [&](const CallContext& call) -> absl::Status {
      SLUICE_ASSIGN_OR_RETURN(const auto model, Find(call, request->name(), request->version()));
      EncodeModelConfig(model, MakesEmbeddings(model), *response->mutable_config());
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* ModelStatistics(CallbackServerContext* context, const inference::ModelStatisticsRequest* request,
                                      inference::ModelStatisticsResponse* response) override {
    return Guarded(*context, [&](const CallContext& call) -> absl::Status {
      if (request->name().empty()) {
        for (const auto& model : ListFor(call)) shared_.statistics.Fill(model.spec.name, *response->add_model_stats());
        return absl::OkStatus();
      }
      SLUICE_ASSIGN_OR_RETURN(const auto model, Find(call, request->name(), request->version()));
      shared_.statistics.Fill(model.spec.name, *response->add_model_stats());
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* RepositoryIndex(CallbackServerContext* context, const inference::RepositoryIndexRequest* request,
                                      inference::RepositoryIndexResponse* response) override {
    return Guarded(*context, [&](const CallContext& call) -> absl::Status {
      SLUICE_RETURN_IF_ERROR(CheckRepository(request->repository_name()));
      for (const engine::ModelInfo& model : ListFor(call)) {
        if (request->ready() && model.state != engine::ModelState::kReady) continue;
        EncodeModelIndex(model, *response->add_models());
      }
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* RepositoryModelLoad(CallbackServerContext* context,
                                          const inference::RepositoryModelLoadRequest* request,
                                          inference::RepositoryModelLoadResponse*) override {
    AdminCall call(*context, shared_.guard, "LoadModel", request->model_name());
    const absl::Status status = call.Check(request->repository_name(), request->parameters(), "");
    if (!status.ok()) return call.Finish(status);
    models().Load(request->model_name(), "", /*pin=*/false, [call](absl::StatusOr<engine::ModelHandle> model) {
      const absl::Status loaded = model.status();
      model = absl::CancelledError();  // gives the model back: the next call may unload it
      call.Finish(loaded);
    });
    return call.reactor;
  }

  ServerUnaryReactor* RepositoryModelUnload(CallbackServerContext* context,
                                            const inference::RepositoryModelUnloadRequest* request,
                                            inference::RepositoryModelUnloadResponse*) override {
    AdminCall call(*context, shared_.guard, "UnloadModel", request->model_name());
    const absl::Status status = call.Check(request->repository_name(), request->parameters(), "unload_dependents");
    return call.Finish(status.ok() ? models().Unload(request->model_name()) : status);
  }

  ServerUnaryReactor* ModelInfer(CallbackServerContext* context, const inference::ModelInferRequest* request,
                                 inference::ModelInferResponse* response) override {
    absl::StatusOr<CallContext> call = shared_.guard.Open(*context);
    if (!call.ok()) return Answer(*context, call.status(), "");
    absl::StatusOr<OipRequest> decoded = DecodeInfer(*request, /*streaming=*/false, shared_.limits);
    if (!decoded.ok()) return Answer(*context, decoded.status(), call->request_id);
    return InferReactor::Begin(shared_, *context, *std::move(call), *std::move(decoded), *response);
  }

  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      CallbackServerContext* context) override {
    return OipStream::Open(shared_, *context);
  }

 private:
  engine::ModelPool& models() const { return shared_.doors.models; }

  // Opens the call and answers with what `handle` returns.
  template <typename Handle>
  ServerUnaryReactor* Guarded(CallbackServerContext& context, Handle handle) {
    const absl::StatusOr<CallContext> call = shared_.guard.Open(context);
    return call.ok() ? Answer(context, handle(*call), call->request_id) : Answer(context, call.status(), "");
  }

  absl::StatusOr<engine::ModelInfo> Find(const CallContext& call, const std::string& name,
                                         const std::string& version) const {
    SLUICE_ASSIGN_OR_RETURN(engine::ModelInfo model, FindModelVersion(models(), name, version));
    SLUICE_RETURN_IF_ERROR(CheckModelAllowed(call.caller, model.spec.name));
    return model;
  }

  // What the caller may use.
  std::vector<engine::ModelInfo> ListFor(const CallContext& call) const {
    std::vector<engine::ModelInfo> list = models().List();
    std::erase_if(list, [&](const auto& model) { return !CheckModelAllowed(call.caller, model.spec.name).ok(); });
    return list;
  }

  bool MakesEmbeddings(const engine::ModelInfo& model) const {
    const auto handle = models().Acquire(model.spec.name);
    return !handle.ok() || (*handle)->scheduler().backend().capabilities().embeddings;
  }

  OipShared shared_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeOipService(DoorContext doors, const CallGuard& guard) {
  return std::make_unique<OipService>(std::move(doors), guard);
}

}  // namespace sluice::services
