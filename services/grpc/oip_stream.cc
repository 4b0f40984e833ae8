#include "services/grpc/oip_stream.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "services/grpc/status_mapping.h"

namespace sluice::services {

OipStream* OipStream::Open(OipShared& shared, grpc::CallbackServerContext& context) {
  const absl::StatusOr<CallContext> call = shared.guard.Open(context);
  const std::string request_id = call.ok() ? call->request_id : "";
  const std::shared_ptr<OipStream> stream(new OipStream(shared, context, request_id));
  stream->self_ = stream;
  if (call.ok()) {
    stream->ReadNext();
  } else {
    stream->Finish(ToGrpcStatus(call.status(), context, request_id));
  }
  return stream.get();
}

void OipStream::OnDone() { const std::shared_ptr<OipStream> last_use = std::move(self_); }

void OipStream::ReadNext() {
  {
    MutexLock lock(mu_);
    if (reading_ || half_closed_ || cancelled_ || entries_.size() >= kMaxRunsPerStream) return;
    reading_ = true;
  }
  StartRead(&request_);
}

void OipStream::OnReadDone(bool ok) {
  if (ok) BeginRequest();
  {
    MutexLock lock(mu_);
    reading_ = false;
    half_closed_ = !ok;
  }
  ReadNext();
  FinishIfIdle();
}

void OipStream::BeginRequest() {
  const auto entry = std::make_shared<Entry>();
  entry->id = request_.id();
  entry->model = request_.model_name();
  absl::StatusOr<CallContext> call = shared_.guard.Open(context_);  // each request is a call of its own
  entry->status = call.status();
  if (call.ok()) {
    entry->call = *std::move(call);
    entry->call.request_id = fmt::format("{}-{}", request_id_, ++requests_);
  }
  absl::StatusOr<OipRequest> decoded = DecodeInfer(request_, /*streaming=*/true, shared_.limits);
  entry->status.Update(decoded.status());
  if (entry->status.ok()) entry->run = std::make_shared<OipRun>(*std::move(decoded), shared_);
  {
    MutexLock lock(mu_);
    if (cancelled_) return;
    entries_.insert(entry);
  }
  if (entry->run == nullptr) return Wake(entry);
  entry->run->Start(entry->call, [self = shared_from_this(), entry] { self->Wake(entry); });
}

void OipStream::Wake(const EntryPtr& entry) {
  {
    MutexLock lock(mu_);
    if (cancelled_) return;
    ready_.push_back(entry);
  }
  Pump();
  FinishIfIdle();
}

void OipStream::Arm(const EntryPtr& entry) {
  entry->run->Arm([self = shared_from_this(), entry] { self->Wake(entry); });
}

// Starts the next write unless one is under way.
void OipStream::Pump() {
  for (;;) {
    EntryPtr entry;
    {
      MutexLock lock(mu_);
      if (writing_ || cancelled_ || ready_.empty()) return;
      entry = std::move(ready_.front());
      ready_.pop_front();
      writing_ = true;
      current_ = entry;
    }
    if (EncodeNext(*entry)) return StartWrite(&response_);
    {
      MutexLock lock(mu_);
      writing_ = false;
    }
    Arm(entry);
  }
}

// False when there is nothing to write yet.
bool OipStream::EncodeNext(Entry& entry) {
  response_.Clear();
  inference::ModelInferResponse& infer = *response_.mutable_infer_response();
  if (entry.run == nullptr) {
    EncodeError(entry, entry.status);
    return true;
  }
  if (entry.empty_final_due) {
    EncodeEmptyFinal(entry.run->request(), entry.run->info(), infer);
    entry.ended = true;
    return true;
  }
  switch (entry.run->Take(infer)) {
    case OipRun::Got::kNothing:
      return false;
    case OipRun::Got::kPart:
      SetFinalFlag(false, infer);
      break;
    case OipRun::Got::kEnd:
      entry.empty_final_due = entry.run->request().empty_final_response;
      entry.ended = !entry.empty_final_due;
      SetFinalFlag(entry.ended, infer);
      break;
    case OipRun::Got::kError:
      EncodeError(entry, entry.run->status());
      break;
  }
  return true;
}

void OipStream::EncodeError(Entry& entry, const absl::Status& status) {
  response_.Clear();
  EncodeStreamError(entry.id, entry.model, status, entry.run == nullptr ? 0 : entry.run->tokens_emitted(), response_);
  entry.ended = true;
}

void OipStream::OnWriteDone(bool ok) {
  EntryPtr entry;
  bool go_on = false;
  {
    MutexLock lock(mu_);
    writing_ = false;
    entry = std::move(current_);
    go_on = ok && !cancelled_;
    if (go_on && entry->ended) entries_.erase(entry);
    if (go_on && entry->empty_final_due && !entry->ended) ready_.push_front(entry);
  }
  if (!ok) return OnCancel();
  if (go_on && !entry->ended && !entry->empty_final_due) Arm(entry);
  Pump();
  ReadNext();
  FinishIfIdle();
}

void OipStream::OnCancel() {
  std::set<EntryPtr> entries;
  {
    MutexLock lock(mu_);
    cancelled_ = true;
    entries.swap(entries_);
    ready_.clear();
  }
  for (const EntryPtr& entry : entries) {
    if (entry->run != nullptr) entry->run->Cancel();
  }
  FinishIfIdle();
}

void OipStream::FinishIfIdle() {
  bool cancelled = false;
  {
    MutexLock lock(mu_);
    if (finished_ || writing_ || reading_ || !(cancelled_ || (half_closed_ && entries_.empty()))) return;
    finished_ = true;
    cancelled = cancelled_;
  }
  AddTrailers({.request_id = request_id_}, context_);
  Finish(cancelled ? grpc::Status(grpc::StatusCode::CANCELLED, "cancelled by the client") : grpc::Status::OK);
}

}  // namespace sluice::services
