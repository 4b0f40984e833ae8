#include "loadtest/kserve_target.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "absl/strings/str_join.h"
#include "base/mutex.h"
#include "base/status.h"
#include "fmt/format.h"
#include "inference/grpc_service.grpc.pb.h"
#include "loadtest/event_loop.h"
#include "loadtest/grpc_channels.h"
#include "loadtest/kserve_protocol.h"

namespace sluice::loadtest {
namespace {

using Service = inference::GRPCInferenceService;

constexpr Duration kRetryPause = std::chrono::milliseconds(100);

class KserveTarget;

// Deletes itself when the call is over.
class Call final : public grpc::ClientBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse> {
 public:
  Call(KserveTarget& target, Request request, Record* record, std::function<void()> done)
      : target_(target), request_(std::move(request)), record_(record), done_(std::move(done)) {}
  // `stub` null: `opened` says why.
  void Begin(Service::Stub* stub, const absl::Status& opened);
  void Cancel() { context_.TryCancel(); }
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void End(const absl::Status& status);
  void ReadMessage();
  void ReadNext();

  KserveTarget& target_;
  const Request request_;
  Record* const record_;
  std::function<void()> done_;
  grpc::ClientContext context_;
  inference::ModelInferRequest proto_;
  inference::ModelStreamInferResponse message_;
  bool looked_away_ = false;  // a slow reader's timer holds the call
  bool final_ = false;
  std::optional<absl::Status> verdict_;  // known before the call is over
};

class KserveTarget final : public Target {
 public:
  KserveTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock, MonoTime epoch)
      : options_(options), loop_(loop), clock_(clock), epoch_(epoch), model_(options.model) {
    auto channels = OpenChannels(options_);
    opened_ = channels.status();
    if (!channels.ok()) return;
    channels_ = *std::move(channels);
    for (const auto& channel : channels_) stubs_.push_back(Service::NewStub(channel));
  }

  void Start(Request request, Record* record, std::function<void()> done) override {
    auto* call = new Call(*this, std::move(request), record, std::move(done));
    calls_.Add(call);
    const size_t turn = next_.fetch_add(1, std::memory_order_relaxed);
    call->Begin(stubs_.empty() ? nullptr : stubs_[turn % stubs_.size()].get(), opened_);
  }
  void CancelAll() override { calls_.CancelAll(); }
  absl::Status Check(Duration timeout, const std::atomic<bool>& stop) override;

  CallRegistry<Call>& calls() { return calls_; }
  std::string model() {
    MutexLock lock(mutex_);
    return model_;
  }
  int64_t NowNs() const { return (clock_.Now() - epoch_).count(); }
  void Later(Duration delay, std::function<void()> work) { loop_.At(clock_.Now() + delay, std::move(work)); }
  const TargetOptions& options() const { return options_; }

 private:
  template <typename Ask, typename Answer>
  using Method = std::unique_ptr<grpc::ClientAsyncResponseReader<Answer>> (Service::Stub::*)(grpc::ClientContext*,
                                                                                             const Ask&,
                                                                                             grpc::CompletionQueue*);
  // One unary call. UNAUTHENTICATED and the like with the URL.
  template <typename Ask, typename Answer>
  absl::Status Unary(Method<Ask, Answer> method, const Ask& ask, Answer* answer, const std::atomic<bool>& stop);
  // UNAVAILABLE: worth another try.
  absl::Status CheckOnce(const std::atomic<bool>& stop);
  absl::Status PickModel(const inference::RepositoryIndexResponse& index);

  const TargetOptions options_;
  EventLoop& loop_;
  const Clock& clock_;
  const MonoTime epoch_;
  absl::Status opened_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<Service::Stub>> stubs_;
  std::atomic<size_t> next_{0};
  Mutex mutex_;
  CondVar changed_;
  std::string model_ ABSL_GUARDED_BY(mutex_);
  CallRegistry<Call> calls_;  // last: ends before the channels do
};

void Call::Begin(Service::Stub* stub, const absl::Status& opened) {
  record_->sent_ns = target_.NowNs();
  absl::Status possible = opened;
  if (possible.ok()) possible = EncodeKserveRequest(request_, target_.model(), &proto_);
  if (!possible.ok()) return End(possible);
  PrepareContext(target_.options(), request_, context_);
  stub->async()->ModelStreamInfer(&context_, this);
  StartWriteLast(&proto_, grpc::WriteOptions());
  StartRead(&message_);
  StartCall();
}

void Call::OnReadDone(bool ok) {
  if (looked_away_) {  // between two reads: the hold was for the timer only
    looked_away_ = false;
    RemoveHold();
  }
  if (!ok) return;
  if (!verdict_.has_value()) ReadMessage();
  ReadNext();
}

void Call::ReadMessage() {
  if (auto error = KserveError(message_); !error.ok()) {
    verdict_ = std::move(error);
    return;
  }
  const inference::ModelInferResponse& answer = message_.infer_response();
  if (const std::string_view text = KserveText(answer); !text.empty()) {
    record_->token_ns.push_back(target_.NowNs());
    if (request_.keep_text) record_->text += text;
  }
  ReadKserveUsage(answer, record_);
  if (IsKserveFinal(answer)) final_ = true;
  if (request_.cancel_after_messages > 0 &&
      static_cast<int>(record_->token_ns.size()) >= request_.cancel_after_messages) {
    verdict_ = absl::CancelledError("cancelled by the client");
    context_.TryCancel();
  }
}

void Call::ReadNext() {
  if (request_.read_delay.count() == 0 || verdict_.has_value()) return StartRead(&message_);
  looked_away_ = true;
  AddHold();
  target_.Later(request_.read_delay, [this] { StartRead(&message_); });
}

void Call::OnDone(const grpc::Status& status) {
  if (verdict_.has_value()) return End(*verdict_);
  if (status.ok() && !final_) return End(absl::DataLossError("the stream ended without triton_final_response"));
  End(ToAbslStatus(status));
}

void Call::End(const absl::Status& status) {
  record_->done_ns = target_.NowNs();
  record_->code = status.code();
  record_->error = std::string(status.message());
  const std::function<void()> done = std::move(done_);
  target_.calls().End(this, done);
}

template <typename Ask, typename Answer>
absl::Status KserveTarget::Unary(Method<Ask, Answer> method, const Ask& ask, Answer* answer,
                                 const std::atomic<bool>& stop) {
  grpc::ClientContext context;
  Request probe;
  probe.timeout = std::chrono::seconds(10);
  PrepareContext(options_, probe, context);
  const auto start = [&](grpc::CompletionQueue* queue) { return ((*stubs_[0]).*method)(&context, ask, queue); };
  const grpc::Status status = CallUntil(stop, context, start, answer);
  if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    return absl::UnauthenticatedError(fmt::format("{} {}: {}", options_.url,
                                                  options_.token.empty() ? "wants a token" : "refuses the token",
                                                  status.error_message()));
  }
  return status.ok() ? absl::OkStatus()
                     : absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                                    fmt::format("{}: {}", options_.url, status.error_message()));
}

absl::Status KserveTarget::PickModel(const inference::RepositoryIndexResponse& index) {
  const std::string wanted = model();
  std::vector<std::string> names;
  for (const auto& model : index.models()) {
    names.push_back(model.name());
    if (model.name() == wanted && model.state() == "LOADING") {
      return absl::UnavailableError(fmt::format("model '{}' is loading", wanted));
    }
  }
  if (wanted.empty()) {
    if (names.size() != 1) {
      return absl::NotFoundError(
          fmt::format("name one of the models of {}: {}", options_.url, absl::StrJoin(names, ", ")));
    }
    MutexLock lock(mutex_);
    model_ = names[0];
  } else if (std::find(names.begin(), names.end(), wanted) == names.end()) {
    return absl::NotFoundError(
        fmt::format("{} has no model '{}'; there are: {}", options_.url, wanted, absl::StrJoin(names, ", ")));
  }
  return absl::OkStatus();
}

absl::Status KserveTarget::CheckOnce(const std::atomic<bool>& stop) {
  inference::ServerReadyResponse server;
  absl::Status status = Unary(&Service::Stub::AsyncServerReady, inference::ServerReadyRequest(), &server, stop);
  if (absl::IsUnimplemented(status)) {
    return absl::UnimplementedError(
        fmt::format("{} is no KServe v2 server: {}", options_.url, std::string(status.message())));
  }
  SLUICE_RETURN_IF_ERROR(status);
  if (!server.ready()) return absl::UnavailableError("the server is not ready");
  inference::RepositoryIndexResponse index;
  status = Unary(&Service::Stub::AsyncRepositoryIndex, inference::RepositoryIndexRequest(), &index, stop);
  if (status.ok()) status = PickModel(index);
  // The index is Triton's extension: without it the model must be named.
  if (!status.ok() && !(absl::IsUnimplemented(status) && !model().empty())) return status;
  inference::ModelMetadataRequest ask;
  ask.set_name(model());
  inference::ModelMetadataResponse metadata;
  return Unary(&Service::Stub::AsyncModelMetadata, ask, &metadata, stop);
}

absl::Status KserveTarget::Check(Duration timeout, const std::atomic<bool>& stop) {
  SLUICE_RETURN_IF_ERROR(opened_);
  const MonoTime give_up = SaturatingAdd(clock_.Now(), timeout);
  for (const auto& channel : channels_) {
    SLUICE_RETURN_IF_ERROR(WaitForChannel(*channel, options_.url, give_up - clock_.Now(), stop));
  }
  while (true) {
    const absl::Status status = CheckOnce(stop);
    if (!absl::IsUnavailable(status)) return status;
    if (stop.load(std::memory_order_relaxed)) return absl::CancelledError("interrupted");
    if (clock_.Now() + kRetryPause >= give_up) {
      return absl::UnavailableError(fmt::format("{} is not ready after {:.1f} s: {}", options_.url, ToSeconds(timeout),
                                                std::string(status.message())));
    }
    MutexLock lock(mutex_);
    changed_.WaitFor(mutex_, kRetryPause);
  }
}

}  // namespace

std::unique_ptr<Target> MakeKserveTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                         MonoTime epoch) {
  return std::make_unique<KserveTarget>(options, loop, clock, epoch);
}

}  // namespace sluice::loadtest
