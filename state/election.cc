#include "state/election.h"

#include <utility>

#include "base/log.h"

namespace sluice::state {

ElectionStep NextStep(const ElectionView& view, MonoTime now) {
  if (now < view.try_again) return ElectionStep::kNothing;
  if (view.session.empty() || view.alive_until <= now) return ElectionStep::kBeginSession;
  return view.known && !view.holder ? ElectionStep::kCampaign : ElectionStep::kNothing;
}

// Whether the store can be read now does not matter: the session's life alone says how long nobody else can lead.
std::optional<Fence> Leading(const ElectionView& view, Duration margin, MonoTime now) {
  if (!view.holder || view.session.empty() || view.holder->session != view.session) return std::nullopt;
  if (view.alive_until <= now || view.alive_until - now <= margin) return std::nullopt;
  return Fence{.key = view.holder->key, .revision = view.holder->revision};
}

Election::Election(StateStore& store, Options options, const Clock& clock)
    : store_(store), options_(std::move(options)), clock_(clock) {
  subscription_ = store_.Watch(options_.key, [this](const absl::StatusOr<Changes>& changes) { Follow(changes); });
}

Election::~Election() { subscription_.reset(); }

void Election::Follow(const absl::StatusOr<Changes>& changes) {
  {
    MutexLock lock(mu_);
    known_ = changes.ok();
    if (changes.ok()) {
      for (const std::string& key : changes->deleted) {
        if (key == options_.key) holder_.reset();
      }
      for (const Entry& entry : changes->put) {
        if (entry.key == options_.key) holder_ = entry;
      }
    }
  }
  if (options_.wake) options_.wake();
}

ElectionView Election::View() const {
  ElectionView view{.known = known_, .holder = holder_, .session = {}, .alive_until = {}, .try_again = try_again_};
  if (session_ != nullptr) {
    view.session = session_->name();
    view.alive_until = session_->alive_until();
  }
  return view;
}

void Election::Tick() {
  TellChange();
  ElectionStep step = ElectionStep::kNothing;
  std::unique_ptr<Session> over;
  const Session* session = nullptr;
  {
    MutexLock lock(mu_);
    step = NextStep(View(), clock_.Now());
    if (step == ElectionStep::kBeginSession) over = std::move(session_);
    session = session_.get();
  }
  if (step == ElectionStep::kNothing) return;
  over.reset();  // before another one begins: it may still hold the key
  absl::Status status;
  if (step == ElectionStep::kBeginSession) {
    auto begun = store_.BeginSession(options_.session_ttl);
    status = begun.status();
    MutexLock lock(mu_);
    if (begun.ok()) session_ = *std::move(begun);
  } else {
    // Whether it worked the watch tells, also when the answer was lost.
    status = store_.Put(options_.key, options_.name, 0, {.session = session, .fence = std::nullopt}).status();
  }
  Settle(step, status);
  if (status.ok() && step == ElectionStep::kBeginSession) return Tick();
  TellChange();
}

void Election::Settle(ElectionStep step, const absl::Status& status) {
  // Once, not with every attempt.
  if (!status.ok() && !absl::IsAborted(status) && status.code() != std::exchange(told_fault_, status.code())) {
    LogWarning("election: the state store failed", {{"key", options_.key}, {"error", status.ToString()}});
  }
  if (status.ok()) told_fault_ = absl::StatusCode::kOk;
  std::unique_ptr<Session> over;
  MutexLock lock(mu_);
  if (absl::IsFailedPrecondition(status)) over = std::move(session_);
  // After a campaign that went well too: it takes a moment until the watch has told.
  if (!status.ok() || step == ElectionStep::kCampaign) try_again_ = SaturatingAdd(clock_.Now(), options_.retry);
}

void Election::TellChange() {
  const std::optional<Fence> fence = leader();
  std::string name = leader_name();
  if (fence == told_fence_ && name == told_leader_) return;
  told_fence_ = fence;
  told_leader_ = std::move(name);
  if (options_.changed) options_.changed(told_fence_, told_leader_);
}

std::optional<Fence> Election::leader() const {
  MutexLock lock(mu_);
  return Leading(View(), options_.margin, clock_.Now());
}

std::string Election::leader_name() const {
  MutexLock lock(mu_);
  return holder_ ? holder_->value : "";
}

}  // namespace sluice::state
