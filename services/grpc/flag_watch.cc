#include "services/grpc/flag_watch.h"

#include <grpcpp/server_context.h>

#include <utility>

#include "base/mutex.h"
#include "services/grpc/flag_codec.h"
#include "services/grpc/status_mapping.h"

namespace sluice::services {
namespace {

using Set = std::shared_ptr<const flags::FlagSet>;
using Changes = std::vector<flags::FlagChange>;

class Watcher final : public grpc::ServerWriteReactor<v1::FlagEvent> {
 public:
  explicit Watcher(std::shared_ptr<std::atomic<int>> watchers) : watchers_(std::move(watchers)) {}

  void Start(flags::FlagGate& gate) {
    watchers_->fetch_add(1);
    counted_ = true;
    // First subscribed, then looked: nothing between the two is lost, and what is seen twice is older than `sent_`.
    subscription_ = gate.OnChange([this](const Set&, const Set& after) { Changed(after, {}); },
                                  [this](const Set& set, const Changes& scheduled) { Changed(set, scheduled); });
    MutexLock lock(mu_);
    sent_ = gate.snapshot();
    EncodeFlagList(*sent_, {}, *event_.mutable_state());
    event_.set_epoch(sent_->epoch());
    writing_ = true;
    StartWrite(&event_);
    started_ = true;
  }

  void End(const grpc::Status& status) {
    MutexLock lock(mu_);
    FinishOnce(status);
  }

 private:
  void Changed(const Set& after, const Changes& scheduled) ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    latest_ = after;
    scheduled_.insert(scheduled_.end(), scheduled.begin(), scheduled.end());
    if (started_ && !writing_) WriteLatest();
  }

  void WriteLatest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const bool newer = latest_ != nullptr && latest_->epoch() > sent_->epoch();
    if (finished_ || (!newer && scheduled_.empty())) return;
    event_.Clear();
    if (newer) {
      EncodeChanges(flags::FindChanges(sent_->spec(), latest_->spec()), *event_.mutable_changes());
      sent_ = std::move(latest_);
    }
    latest_ = nullptr;
    EncodeChanges(std::exchange(scheduled_, {}), *event_.mutable_changes());
    event_.set_epoch(sent_->epoch());
    EncodeFlagList(*sent_, {}, *event_.mutable_state());
    writing_ = true;
    StartWrite(&event_);
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(mu_);
    writing_ = false;
    ok ? WriteLatest() : FinishOnce(grpc::Status(grpc::StatusCode::CANCELLED, "the watcher left"));
  }
  void OnCancel() override { End(grpc::Status(grpc::StatusCode::CANCELLED, "the watcher left")); }
  void OnDone() override {
    subscription_ = {};  // waits for a running callback
    if (counted_) watchers_->fetch_sub(1);
    delete this;
  }

  void FinishOnce(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(finished_, true)) return;
    Finish(status);
  }

  const std::shared_ptr<std::atomic<int>> watchers_;
  bool counted_ = false;
  flags::FlagGate::Subscription subscription_;
  Mutex mu_;
  Set sent_ ABSL_GUARDED_BY(mu_), latest_ ABSL_GUARDED_BY(mu_);
  Changes scheduled_ ABSL_GUARDED_BY(mu_);  // not told yet
  v1::FlagEvent event_ ABSL_GUARDED_BY(mu_);
  bool started_ ABSL_GUARDED_BY(mu_) = false, writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::FlagEvent>* WatchFlags(flags::FlagGate& gate, const absl::Status& permitted,
                                                    grpc::CallbackServerContext& context, const std::string& request_id,
                                                    std::shared_ptr<std::atomic<int>> watchers) {
  auto* watcher = new Watcher(std::move(watchers));
  if (permitted.ok()) {
    watcher->Start(gate);
  } else {
    watcher->End(ToGrpcStatus(permitted, context, request_id));
  }
  return watcher;
}

}  // namespace sluice::services
