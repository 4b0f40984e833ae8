// A session in etcd: a lease, and a thread that renews it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "state/etcd/connection.h"
#include "state/etcd/stopper.h"
#include "state/state_store.h"

namespace sluice::state::etcd {

// When renewals are due and what they mean. A value; pure.
//
// etcd counts the ttl from when a renewal arrives, which is never before it was sent; so `alive_until` errs to the safe
// side by the way there, given clocks that run alike.
class LeaseLife {
 public:
  LeaseLife(MonoTime sent, Duration ttl) : ttl_(ttl), alive_until_(sent + ttl), next_(sent + ttl / 3) {}

  MonoTime alive_until() const { return alive_until_; }
  MonoTime next_renewal() const { return next_; }
  bool lost(MonoTime now) const { return now >= alive_until_; }

  // A renewal sent at `sent` was acknowledged. False: too late, or the lease is gone (`ttl` zero): lost for ever, since
  // somebody may have read that it is.
  bool Renewed(MonoTime sent, Duration ttl, MonoTime now);
  void Failed(MonoTime now, Duration backoff) { next_ = now + backoff; }

 private:
  Duration ttl_;
  MonoTime alive_until_, next_;
};

class LeaseSession final : public Session {
 public:
  // As StateStore::BeginSession.
  static absl::StatusOr<std::unique_ptr<Session>> Begin(std::shared_ptr<Connection> connection, Duration ttl);
  ~LeaseSession() override;  // gives the lease back; waits for that for at most a second

  std::string_view name() const override { return name_; }
  MonoTime alive_until() const override;

 private:
  LeaseSession(std::shared_ptr<Connection> connection, int64_t lease, const LeaseLife& life);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  bool Renew(int failures) ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<Connection> connection_;
  const int64_t lease_;
  const std::string name_;
  mutable Mutex mu_;  // a leaf
  LeaseLife life_ ABSL_GUARDED_BY(mu_);
  Stopper stopper_;
  std::thread renewer_;
};

}  // namespace sluice::state::etcd
