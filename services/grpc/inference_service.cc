#include "services/grpc/inference_service.h"

#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "services/grpc/generate_reactor.h"
#include "services/grpc/request_codec.h"
#include "services/grpc/status_mapping.h"
#include "services/prompt.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

ServerUnaryReactor* Answer(CallbackServerContext* context, const absl::Status& status, const std::string& request_id) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status, *context, request_id));
  return reactor;
}

// One Embed call. Frees itself after OnDone.
class EmbedReactor final : public ServerUnaryReactor, public std::enable_shared_from_this<EmbedReactor> {
 public:
  EmbedReactor(CallContext call, CallbackServerContext& context, v1::EmbedResponse& response)
      : call_(std::move(call)), context_(context), response_(response) {}

  void Start(RequestFlow& flow, EmbedCall decoded) {
    self_ = shared_from_this();
    auto ticket =
        flow.Embed(std::move(decoded.request), std::move(decoded.inputs),
                   [self = self_](absl::StatusOr<std::vector<std::vector<float>>> embeddings, int prompt_tokens,
                                  const FlowInfo& info) { self->Close(embeddings, prompt_tokens, info); });
    MutexLock lock(mu_);
    ticket_ = std::move(ticket);
  }

 private:
  void Close(const absl::StatusOr<std::vector<std::vector<float>>>& embeddings, int prompt_tokens,
             const FlowInfo& info) {
    if (embeddings.ok()) {
      for (const std::vector<float>& values : *embeddings) {
        response_.add_embeddings()->mutable_values()->Assign(values.begin(), values.end());
      }
      response_.set_prompt_tokens(prompt_tokens);
      response_.set_model(info.model);
    }
    const grpc::Status wire = ToGrpcStatus(embeddings.status(), context_, info.request_id, /*tokens_emitted=*/0);
    AddTrailers(info, context_);
    Finish(wire);
  }

  void OnCancel() override {
    std::shared_ptr<FlowTicket> ticket;
    {
      MutexLock lock(mu_);
      ticket = ticket_;
    }
    if (ticket != nullptr) ticket->Cancel();
  }

  void OnDone() override {
    {
      MutexLock lock(mu_);
      ticket_ = nullptr;
    }
    call_.open = nullptr;
    const auto last = std::exchange(self_, nullptr);
  }

  CallContext call_;
  CallbackServerContext& context_;  // these two live until OnDone
  v1::EmbedResponse& response_;
  std::shared_ptr<EmbedReactor> self_;  // until OnDone

  Mutex mu_;  // leaf lock: OnCancel may come at any time
  std::shared_ptr<FlowTicket> ticket_ ABSL_GUARDED_BY(mu_);
};

// Answers with `work(model)` as soon as the model is there.
template <typename Work>
ServerUnaryReactor* WithModel(engine::ModelPool& models, CallContext call, const std::string& name,
                              CallbackServerContext* context, Work work) {
  const absl::Status allowed = CheckMayUse(models, call.caller, name);
  if (!allowed.ok()) return Answer(context, allowed, call.request_id);
  ServerUnaryReactor* reactor = context->DefaultReactor();
  const MonoTime deadline = call.deadline;
  models.AcquireOrLoad(
      name, deadline,
      [reactor, context, call = std::move(call), work = std::move(work)](absl::StatusOr<engine::ModelHandle> model) {
        // The lease ends before the client can know, so that it may unload the model next.
        const absl::Status status = model.ok() ? work(*engine::ModelHandle(*std::move(model))) : model.status();
        reactor->Finish(ToGrpcStatus(status, *context, call.request_id));
      });
  return reactor;
}

absl::Status TokenizeWith(const engine::LoadedModel& model, const v1::TokenizeRequest& request,
                          v1::TokenizeResponse& response) {
  const engine::Tokenizer& tokenizer = model.tokenizer();
  absl::StatusOr<std::vector<engine::TokenId>> tokens;
  if (request.has_chat()) {
    SLUICE_ASSIGN_OR_RETURN(const std::string text, tokenizer.ApplyChatTemplate(DecodeChat(request.chat())));
    tokens = tokenizer.Tokenize(text, /*add_special=*/false, /*parse_special=*/true);
  } else {
    tokens = tokenizer.Tokenize(request.text(), request.add_special(), /*parse_special=*/false);
  }
  SLUICE_RETURN_IF_ERROR(tokens.status());
  response.mutable_token_ids()->Assign(tokens->begin(), tokens->end());
  if (request.return_pieces()) {
    for (const engine::TokenId token : *tokens) response.add_pieces(tokenizer.Piece(token, /*special=*/true));
  }
  response.set_slot_context(model.geometry().slot_context);
  return absl::OkStatus();
}

absl::Status DetokenizeWith(const engine::LoadedModel& model, const v1::DetokenizeRequest& request,
                            v1::DetokenizeResponse& response) {
  const engine::Tokenizer& tokenizer = model.tokenizer();
  SLUICE_RETURN_IF_ERROR(CheckDetokenize(request, tokenizer.vocab_size()));
  std::string bytes;
  for (const engine::TokenId token : request.token_ids()) bytes += tokenizer.Piece(token, /*special=*/true);
  response.set_text(ReplaceInvalidUtf8(bytes));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(CallbackServerContext* context,
                                                                           const v1::GenerateRequest* request) {
  absl::StatusOr<CallContext> call = guard_.Open(*context);
  if (!call.ok()) return StartGenerate(doors_.flow, call.status(), false, {}, *context);
  absl::StatusOr<InferenceRequest> decoded = DecodeGenerate(*request, *call, limits_);
  return StartGenerate(doors_.flow, std::move(decoded), request->return_token_ids(), *std::move(call), *context);
}

ServerUnaryReactor* InferenceService::Embed(CallbackServerContext* context, const v1::EmbedRequest* request,
                                            v1::EmbedResponse* response) {
  absl::StatusOr<CallContext> call = guard_.Open(*context);
  if (!call.ok()) return Answer(context, call.status(), "");
  absl::StatusOr<EmbedCall> decoded = DecodeEmbed(*request, *call, limits_);
  if (!decoded.ok()) return Answer(context, decoded.status(), call->request_id);
  const auto reactor = std::make_shared<EmbedReactor>(*std::move(call), *context, *response);
  reactor->Start(doors_.flow, *std::move(decoded));
  return reactor.get();
}

ServerUnaryReactor* InferenceService::Tokenize(CallbackServerContext* context, const v1::TokenizeRequest* request,
                                               v1::TokenizeResponse* response) {
  absl::StatusOr<CallContext> call = guard_.Open(*context);
  if (!call.ok()) return Answer(context, call.status(), "");
  const absl::Status valid = CheckTokenize(*request, limits_);
  if (!valid.ok()) return Answer(context, valid, call->request_id);
  return WithModel(doors_.models, *std::move(call), request->model(), context,
                   [=](const engine::LoadedModel& model) { return TokenizeWith(model, *request, *response); });
}

ServerUnaryReactor* InferenceService::Detokenize(CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                                 v1::DetokenizeResponse* response) {
  absl::StatusOr<CallContext> call = guard_.Open(*context);
  if (!call.ok()) return Answer(context, call.status(), "");
  return WithModel(doors_.models, *std::move(call), request->model(), context,
                   [=](const engine::LoadedModel& model) { return DetokenizeWith(model, *request, *response); });
}

ServerUnaryReactor* InferenceService::ListModels(CallbackServerContext* context, const v1::ListModelsRequest*,
                                                 v1::ListModelsResponse* response) {
  const absl::StatusOr<CallContext> call = guard_.Open(*context);
  if (!call.ok()) return Answer(context, call.status(), "");
  for (const engine::ModelInfo& info : doors_.models.List()) {
    if (CheckModelAllowed(call->caller, info.spec.name).ok()) EncodeModel(info, *response->add_models());
  }
  return Answer(context, absl::OkStatus(), call->request_id);
}

std::unique_ptr<grpc::Service> MakeInferenceService(DoorContext doors, const CallGuard& guard) {
  return std::make_unique<InferenceService>(std::move(doors), guard);
}

}  // namespace sluice::services
