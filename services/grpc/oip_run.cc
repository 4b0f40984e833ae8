#include "services/grpc/oip_run.h"

#include <utility>

#include "base/check.h"
#include "services/grpc/oip_metadata.h"

namespace sluice::services {

void OipRun::Start(const CallContext& call, std::function<void()> wake) {
  arrival_ = call.arrival;
  absl::StatusOr<InferenceRequest> request = ToInferenceRequest(request_, call, shared_.limits);
  if (!request.ok()) {
    status_ = request.status();
    info_.request_id = call.request_id;
    wake();
  } else if (request_.want_embedding) {
    StartEmbedding(*std::move(request), std::move(wake));
  } else {
    StartGeneration(*std::move(request), std::move(wake));
  }
}

void OipRun::StartGeneration(InferenceRequest request, std::function<void()> wake) {
  chunk_.text = request_.repeated_input;
  Keep(shared_.doors.flow.Start(std::move(request), [self = shared_from_this(), wake = std::move(wake)](
                                                        absl::StatusOr<OpenedStream> opened, const FlowInfo& info) {
    self->info_ = info;
    self->status_ = opened.status();
    if (opened.ok()) self->opened_ = *std::move(opened);
    wake();
  }));
}

void OipRun::StartEmbedding(InferenceRequest request, std::function<void()> wake) {
  auto* text = std::get_if<std::string>(&request.input);
  SLUICE_CHECK(text != nullptr, "text_input decodes to a text");
  std::vector<std::string> inputs = {std::move(*text)};
  auto done = [self = shared_from_this(), wake = std::move(wake)](absl::StatusOr<std::vector<std::vector<float>>> v,
                                                                  int prompt_tokens, const FlowInfo& info) {
    self->info_ = info;
    self->status_ = v.status();
    self->prompt_tokens_ = prompt_tokens;
    if (v.ok()) {
      SLUICE_CHECK(v->size() == 1, "one vector per input");
      self->embedding_ = std::move(v->front());
    }
    wake();
  };
  Keep(shared_.doors.flow.Embed(std::move(request), std::move(inputs), std::move(done)));
}

void OipRun::Keep(std::shared_ptr<FlowTicket> ticket) {
  bool cancelled = false;
  {
    MutexLock lock(mu_);
    if (ended_) return;
    ticket_ = ticket;
    cancelled = cancelled_;
  }
  if (cancelled && ticket != nullptr) ticket->Cancel();
}

OipRun::Got OipRun::Take(inference::ModelInferResponse& response) {
  if (!status_.ok()) return End(status_, nullptr);
  if (!request_.want_embedding) return TakeTokens(response);
  EncodeEmbedding(request_, info_, embedding_, prompt_tokens_, response);
  return End(absl::OkStatus(), nullptr);
}

OipRun::Got OipRun::TakeTokens(inference::ModelInferResponse& response) {
  const engine::TokenStream::Batch batch = opened_.stream->Take();
  chunk_tokens_ += static_cast<int>(batch.tokens.size());
  for (const engine::TokenEvent& event : batch.tokens) {
    chunk_.text += event.text;
    if (request_.want_token_ids) chunk_.token_ids.push_back(event.sampled.token);
  }
  if (!batch.finished) {
    // Tokens may end inside a character: nothing to send then.
    const bool something = !chunk_.token_ids.empty() || (request_.want_text && !chunk_.text.empty());
    if (!request_.stream || !something) return Got::kNothing;
    EncodeChunk(request_, info_, std::exchange(chunk_, {}), response);
    tokens_emitted_ += std::exchange(chunk_tokens_, 0);
    return Got::kPart;
  }
  if (!batch.summary.status.ok()) return End(batch.summary.status, &batch.summary);
  chunk_.text += batch.tail_text;
  chunk_.summary = &batch.summary;
  EncodeChunk(request_, info_, std::exchange(chunk_, {}), response);
  return End(absl::OkStatus(), &batch.summary);
}

OipRun::Got OipRun::End(const absl::Status& status, const engine::GenerationSummary* summary) {
  opened_ = {};  // gives the model back
  status_ = WithOipFields(status);
  std::shared_ptr<FlowTicket> ticket;
  {
    MutexLock lock(mu_);
    ended_ = true;
    ticket.swap(ticket_);
  }
  RecordOnce(status_.ok(), summary);
  return status_.ok() ? Got::kEnd : Got::kError;
}

void OipRun::Arm(std::function<void()> wake) { opened_.stream->NotifyWhenReady(std::move(wake)); }

void OipRun::Cancel() {
  std::shared_ptr<FlowTicket> ticket;
  {
    MutexLock lock(mu_);
    cancelled_ = true;
    ticket = ticket_;
  }
  if (ticket != nullptr) ticket->Cancel();
  RecordOnce(/*success=*/false, nullptr);
}

void OipRun::RecordOnce(bool success, const engine::GenerationSummary* summary) {
  {
    MutexLock lock(mu_);
    if (std::exchange(recorded_, true)) return;
  }
  // Not info_: Cancel comes from any thread. A name that no model has is not counted.
  const auto model = FindModel(shared_.doors.models, request_.generate.model());
  if (!model.has_value()) return;
  shared_.statistics.Record(model->spec.name, success, shared_.doors.clock.Now() - arrival_, summary);
}

}  // namespace sluice::services
