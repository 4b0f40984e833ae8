#include "services/grpc/generate_reactor.h"

#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "services/grpc/request_codec.h"
#include "services/grpc/status_mapping.h"

namespace sluice::services {
namespace {

// Its steps follow each other: opened → (take → write → written)* → closed. Each step ends with the call that lets the
// next one begin, perhaps on another thread, and touches no member after it.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  GenerateReactor(CallContext call, EncodeOptions encode, grpc::CallbackServerContext& context)
      : call_(std::move(call)), encode_(encode), context_(context) {
    info_.request_id = call_.request_id;
  }

  void Start(RequestFlow& flow, InferenceRequest request) {
    self_ = shared_from_this();
    info_.request_id = request.request_id;
    auto ticket =
        flow.Start(std::move(request), [self = self_](absl::StatusOr<OpenedStream> opened, const FlowInfo& info) {
          self->OnOpened(std::move(opened), info);
        });
    // gRPC calls nothing before the handler has returned this reactor, so OnCancel finds the ticket.
    MutexLock lock(mu_);
    ticket_ = std::move(ticket);
  }

  void Refuse(const absl::Status& status) {
    self_ = shared_from_this();
    Close(status);
  }

 private:
  void OnOpened(absl::StatusOr<OpenedStream> opened, const FlowInfo& info) {
    info_ = info;
    if (!opened.ok()) return Close(opened.status());
    opened_ = *std::move(opened);
    TakeAndWrite();
  }

  void TakeAndWrite() {
    const engine::TokenStream::Batch batch = opened_.stream->Take();
    message_.Clear();
    emitted_ += static_cast<int>(batch.tokens.size());
    EncodeTokens(batch, encode_, opened_.model->tokenizer(), message_);
    if (batch.finished) {
      if (batch.summary.status.ok()) EncodeFinish(batch.summary, info_, *message_.mutable_finish());
      return Close(batch.summary.status);
    }
    if (Empty()) return opened_.stream->NotifyWhenReady([self = self_] { self->TakeAndWrite(); });
    StartWrite(&message_);
  }

  void OnWriteDone(bool ok) override {
    if (ok) return TakeAndWrite();
    Cancel();  // the connection is gone
    message_.Clear();
    Close(MakeError(Reason::kClientCancelled, "the client left"));
  }

  void OnCancel() override { Cancel(); }

  void OnDone() override {
    {
      MutexLock lock(mu_);
      ticket_ = nullptr;
    }
    call_.open = nullptr;
    const auto last = std::exchange(self_, nullptr);
  }

  bool Empty() const {
    return message_.text().empty() && message_.token_ids().empty() && message_.logprobs().empty() &&
           !message_.has_finish();
  }

  // The last step. What the message holds still goes out, also before an error.
  void Close(const absl::Status& status) {
    opened_ = {};
    const grpc::Status wire = ToGrpcStatus(status, context_, info_.request_id, emitted_);
    AddTrailers(info_, context_);
    if (Empty()) return Finish(wire);
    StartWriteAndFinish(&message_, grpc::WriteOptions(), wire);
  }

  void Cancel() {
    std::shared_ptr<FlowTicket> ticket;
    {
      MutexLock lock(mu_);
      ticket = ticket_;
    }
    if (ticket != nullptr) ticket->Cancel();
  }

  CallContext call_;
  const EncodeOptions encode_;
  grpc::CallbackServerContext& context_;  // lives until OnDone
  FlowInfo info_;
  OpenedStream opened_;
  int emitted_ = 0;  // tokens, the ones in message_ included
  v1::GenerateResponse message_;
  std::shared_ptr<GenerateReactor> self_;  // until OnDone

  Mutex mu_;  // leaf lock: OnCancel may come at any time
  std::shared_ptr<FlowTicket> ticket_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(RequestFlow& flow,
                                                              absl::StatusOr<InferenceRequest> request,
                                                              bool return_token_ids, CallContext call,
                                                              grpc::CallbackServerContext& context) {
  EncodeOptions encode{.token_ids = return_token_ids};
  if (request.ok()) encode.logprobs = request->sampling.want_logprobs;
  const auto reactor = std::make_shared<GenerateReactor>(std::move(call), encode, context);
  if (request.ok()) {
    reactor->Start(flow, *std::move(request));
  } else {
    reactor->Refuse(request.status());
  }
  return reactor.get();
}

}  // namespace sluice::services
