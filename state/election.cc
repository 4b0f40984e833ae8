#include "state/election.h"

#include <utility>

namespace sluice::state {

Election::Election(StateStore& store, std::string key, std::string candidate, const Clock& clock)
    : store_(store), key_(std::move(key)), candidate_(std::move(candidate)), clock_(clock) {}

Election::~Election() = default;

bool Election::Lives() const { return session_ != nullptr && session_->alive_until() > clock_.Now(); }

const Session* Election::session() const { return Lives() ? session_.get() : nullptr; }

absl::Status Election::Tick() {
  if (!Lives()) {
    {
      MutexLock lock(mu_);
      fence_.reset();
    }
    session_.reset();
    auto begun = store_.BeginSession();
    if (!begun.ok()) return begun.status();
    session_ = *std::move(begun);
  }
  const auto put = store_.Put(key_, candidate_, 0, {.session = session_.get(), .fence = {}});
  if (put.ok()) {
    MutexLock lock(mu_);
    fence_ = Fence{.key = key_, .revision = *put};
    leads_until_ = session_->alive_until();
    leader_ = candidate_;
    return absl::OkStatus();
  }
  // Lost: the next Tick begins anew.
  if (put.status().code() == absl::StatusCode::kFailedPrecondition) session_.reset();
  if (put.status().code() != absl::StatusCode::kAborted) return put.status();
  const auto entry = store_.Get(key_);  // somebody leads; perhaps it is us
  if (!entry.ok() && entry.status().code() != absl::StatusCode::kNotFound) return entry.status();
  MutexLock lock(mu_);
  leader_ = entry.ok() ? entry->value : "";
  if (entry.ok() && entry->session == session_->id()) {
    // Also when the answer to the put that made us leader was lost.
    fence_ = Fence{.key = key_, .revision = entry->revision};
    leads_until_ = session_->alive_until();
  } else {
    fence_.reset();
  }
  return absl::OkStatus();
}

std::optional<Fence> Election::fence() const {
  MutexLock lock(mu_);
  return fence_ && leads_until_ > clock_.Now() ? fence_ : std::nullopt;
}

std::string Election::leader() const {
  MutexLock lock(mu_);
  return leader_;
}

}  // namespace sluice::state
