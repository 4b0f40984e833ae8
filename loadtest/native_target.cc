#include "loadtest/native_target.h"

#include <atomic>

#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "loadtest/event_loop.h"
#include "loadtest/grpc_channels.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::loadtest {
namespace {

namespace pb = ::sluice::v1;

pb::PriorityClass ClassOf(const std::string& name) {
  if (name == "system") return pb::PRIORITY_CLASS_SYSTEM;
  if (name == "interactive") return pb::PRIORITY_CLASS_INTERACTIVE;
  if (name == "batch") return pb::PRIORITY_CLASS_BATCH;
  return name == "standard" ? pb::PRIORITY_CLASS_STANDARD : pb::PRIORITY_CLASS_UNSPECIFIED;
}

pb::GenerateRequest ToProto(const Request& r, const std::string& model) {
  pb::GenerateRequest proto;
  proto.set_model(model);
  if (!r.token_ids.empty()) {
    proto.mutable_token_ids()->mutable_ids()->Assign(r.token_ids.begin(), r.token_ids.end());
  } else if (!r.chat.empty()) {
    for (const auto& [role, content] : r.chat) {
      pb::ChatMessage* message = proto.mutable_chat()->add_messages();
      message->set_role(role);
      message->set_content(content);
    }
  } else {
    proto.set_prompt(r.prompt);
  }
  proto.mutable_sampling()->set_temperature(static_cast<float>(r.temperature));
  proto.mutable_sampling()->set_seed(r.seed);
  proto.set_max_tokens(r.max_tokens);
  proto.set_ignore_eos(r.ignore_eos);
  proto.set_priority_class(ClassOf(r.priority_class));
  proto.set_tenant(r.tenant);
  proto.set_user(r.user);
  proto.set_conversation(r.conversation);
  return proto;
}

std::string Trailer(const grpc::ClientContext& context, const char* name) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto it = trailers.find(name);
  return it == trailers.end() ? "" : std::string(it->second.data(), it->second.size());
}

class NativeTarget;

// Deletes itself when the call is over.
class Call final : public grpc::ClientReadReactor<pb::GenerateResponse> {
 public:
  Call(NativeTarget& target, Request request, Record* record, std::function<void()> done)
      : target_(target), request_(std::move(request)), record_(record), done_(std::move(done)) {}
  void Begin(pb::InferenceService::Stub& stub);
  void Cancel() { context_.TryCancel(); }
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void ReadNext();
  NativeTarget& target_;
  const Request request_;
  Record* const record_;
  std::function<void()> done_;
  grpc::ClientContext context_;
  pb::GenerateRequest proto_;
  pb::GenerateResponse message_;
  bool cancelled_ = false;
  bool holding_ = false;  // a slow reader keeps the call from ending under its timer
};

class NativeTarget final : public Target {
 public:
  NativeTarget(TargetOptions options, EventLoop& loop, const Clock& clock, MonoTime epoch)
      : options_(std::move(options)), loop_(loop), clock_(clock), epoch_(epoch) {
    auto channels = OpenChannels(options_);
    if (!channels.ok()) {
      opened_ = channels.status();
      return;
    }
    channels_ = *std::move(channels);
    for (const auto& channel : channels_) stubs_.push_back(pb::InferenceService::NewStub(channel));
  }

  void Start(Request request, Record* record, std::function<void()> done) override {
    SLUICE_CHECK(opened_.ok(), "Check succeeded before");
    auto* call = new Call(*this, std::move(request), record, std::move(done));
    calls_.Add(call);
    call->Begin(*stubs_[next_.fetch_add(1, std::memory_order_relaxed) % stubs_.size()]);
  }
  void CancelAll() override { calls_.CancelAll(); }
  absl::Status Check(Duration timeout, const std::atomic<bool>& stop) override;

  CallRegistry<Call>& calls() { return calls_; }
  int64_t NowNs() const { return (clock_.Now() - epoch_).count(); }
  const TargetOptions& options() const { return options_; }
  EventLoop& loop() { return loop_; }
  const Clock& clock() const { return clock_; }

 private:
  const TargetOptions options_;
  EventLoop& loop_;
  const Clock& clock_;
  const MonoTime epoch_;
  absl::Status opened_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<pb::InferenceService::Stub>> stubs_;
  std::atomic<size_t> next_{0};
  Mutex mutex_;
  CondVar idle_;
  CallRegistry<Call> calls_;  // last: ends before the channels do
};

void Call::Begin(pb::InferenceService::Stub& stub) {
  PrepareContext(target_.options(), request_, context_);
  proto_ = ToProto(request_, target_.options().model);
  record_->sent_ns = target_.NowNs();
  stub.async()->Generate(&context_, &proto_, this);
  StartRead(&message_);
  StartCall();
}

void Call::OnReadDone(bool ok) {
  if (holding_) {  // between two reads: the hold was for the timer only
    holding_ = false;
    RemoveHold();
  }
  if (!ok) return;
  if (!message_.text().empty() || message_.token_ids_size() > 0) {
    record_->token_ns.push_back(target_.NowNs());
    if (request_.keep_text) record_->text += message_.text();
  }
  if (message_.has_finish()) {
    const pb::Finish& finish = message_.finish();
    record_->prompt_tokens = finish.usage().prompt_tokens();
    record_->cached_tokens = finish.usage().cached_tokens();
    record_->output_tokens = finish.usage().output_tokens();
    record_->server_queue_ms = finish.timings().queue_wait_ms();
    record_->server_prefill_ms = finish.timings().prefill_ms();
    record_->server_ttft_ms = finish.timings().ttft_ms();
    record_->finish_reason = finish.reason();
    record_->pipeline = finish.pipeline();
  }
  if (request_.cancel_after_messages > 0 &&
      static_cast<int>(record_->token_ns.size()) >= request_.cancel_after_messages) {
    cancelled_ = true;
    context_.TryCancel();
  }
  ReadNext();
}

void Call::ReadNext() {
  if (request_.read_delay.count() == 0) return StartRead(&message_);
  holding_ = true;
  AddHold();
  target_.loop().At(target_.clock().Now() + request_.read_delay, [this] { StartRead(&message_); });
}

void Call::OnDone(const grpc::Status& status) {
  record_->done_ns = target_.NowNs();
  record_->code = static_cast<absl::StatusCode>(status.error_code());
  record_->error = status.error_message();
  // The server may have finished just before the planned cancel reached it.
  if (cancelled_) record_->code = absl::StatusCode::kCancelled;
  record_->flags = Trailer(context_, "sluice-flags");
  if (record_->pipeline.empty()) record_->pipeline = Trailer(context_, "sluice-pipeline");
  const std::function<void()> done = std::move(done_);
  target_.calls().End(this, done);
}

absl::Status NativeTarget::Check(Duration timeout, const std::atomic<bool>& stop) {
  if (!opened_.ok()) return opened_;
  for (const auto& channel : channels_) {
    if (auto status = WaitForChannel(*channel, options_.url, timeout, stop); !status.ok()) return status;
  }
  const MonoTime give_up = clock_.Now() + timeout;
  while (true) {
    grpc::ClientContext context;
    Request probe;
    probe.timeout = std::chrono::seconds(10);
    PrepareContext(options_, probe, context);
    pb::ListModelsResponse models;
    const auto start = [&](grpc::CompletionQueue* queue) { return stubs_[0]->AsyncListModels(&context, {}, queue); };
    const grpc::Status status = CallUntil(stop, context, start, &models);
    if (!status.ok()) return ToAbslStatus(status);
    std::vector<std::string> names;
    const pb::Model* found = nullptr;
    for (const pb::Model& model : models.models()) {
      names.push_back(model.name());
      if (options_.model.empty() ? model.is_default() : model.name() == options_.model) found = &model;
    }
    if (found == nullptr) {
      return absl::NotFoundError(
          fmt::format("{} has no model '{}'; there are: {}", options_.url, options_.model, absl::StrJoin(names, ", ")));
    }
    if (found->state() == "failed") {
      return absl::FailedPreconditionError(
          fmt::format("model '{}' of {} failed to load: {}", found->name(), options_.url, found->error()));
    }
    if (found->state() != "loading") return absl::OkStatus();
    if (stop.load(std::memory_order_relaxed)) return absl::CancelledError("interrupted");
    if (clock_.Now() > give_up) {
      return absl::UnavailableError(fmt::format("model '{}' of {} is still loading after {:.0f} s", found->name(),
                                                options_.url, ToSeconds(timeout)));
    }
    MutexLock lock(mutex_);
    idle_.WaitFor(mutex_, std::chrono::milliseconds(100));
  }
}

}  // namespace

std::unique_ptr<Target> MakeNativeTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                         MonoTime epoch) {
  return std::make_unique<NativeTarget>(options, loop, clock, epoch);
}

}  // namespace sluice::loadtest
