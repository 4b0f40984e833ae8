// The way to a cluster of etcd: endpoints of which one is used until it fails, deadlines, tokens, metrics.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "etcd/rpc.grpc.pb.h"
#include "state/etcd/etcd_options.h"
#include "state/etcd/stopper.h"

namespace sluice::state::etcd {

struct Endpoint {
  std::string name;  // "HOST:PORT"
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<etcdserverpb::KV::Stub> kv;
  std::unique_ptr<etcdserverpb::Lease::Stub> lease;
  std::unique_ptr<etcdserverpb::Watch::Stub> watch;
  std::unique_ptr<etcdserverpb::Auth::Stub> auth;
};

struct Method {
  const char* name;  // label of the metrics
  // May be sent again when it is unknown whether it happened.
  bool repeatable;
};
inline constexpr Method kRange{"range", true}, kCommit{"txn", false}, kWatch{"watch", true}, kGrant{"grant", true},
    kRevoke{"revoke", true}, kKeepAlive{"keep_alive", true}, kAuthenticate{"authenticate", true};

// Thread-safety: thread-safe.
class Connection {
 public:
  // Reads the files of TLS; connects with the first call. INVALID_ARGUMENT: options or files.
  static absl::StatusOr<std::shared_ptr<Connection>> Create(EtcdOptions options, const Clock& clock,
                                                            std::function<double()> random, MetricsRegistry& metrics);

  using Attempt = std::function<grpc::Status(Endpoint& endpoint, grpc::ClientContext& context)>;

  // Calls at the present endpoint; where it cannot be reached, at the next one, and when a repeatable call failed there
  // as well. Blocks for at most `timeout`. Errors: UNAVAILABLE with endpoint and cause, RESOURCE_EXHAUSTED (its
  // database is full), FAILED_PRECONDITION (no such lease), OUT_OF_RANGE (the revision was compacted), CANCELLED
  // (`stopper`, which may be null).
  absl::Status Call(const Method& method, Duration timeout, Stopper* stopper, const Attempt& attempt);

  // For a stream: an endpoint that is connected, and a context that has its token but no deadline. UNAVAILABLE.
  absl::StatusOr<Endpoint*> Prepare(grpc::ClientContext& context, Stopper* stopper);
  // A stream ended so: the error, and the next call tries the next endpoint.
  absl::Status StreamEnded(const Method& method, Endpoint& endpoint, const grpc::Status& status);

  const EtcdOptions& options() const { return options_; }
  const Clock& clock() const { return clock_; }
  Duration BackoffFor(int failures) ABSL_LOCKS_EXCLUDED(mu_);
  Counter& watch_restarts() { return watch_restarts_; }
  void CountRenewal(bool ok) { renewals_.With({ok ? "ok" : "error"}).Add(); }

 private:
  Connection(EtcdOptions options, const Clock& clock, std::function<double()> random, MetricsRegistry& metrics);

  Endpoint& Present() ABSL_LOCKS_EXCLUDED(mu_);
  void Leave(const Endpoint& endpoint) ABSL_LOCKS_EXCLUDED(mu_);
  bool Connect(Endpoint& endpoint, MonoTime end, bool patient, Stopper* stopper) const;
  absl::Status AddToken(Endpoint& endpoint, MonoTime end, Stopper* stopper, grpc::ClientContext& context)
      ABSL_LOCKS_EXCLUDED(mu_);
  void DropToken() ABSL_LOCKS_EXCLUDED(mu_);
  // One attempt, and a second one with a new token where that is what failed.
  grpc::Status TryAt(Endpoint& endpoint, MonoTime end, Stopper* stopper, const Attempt& attempt);
  absl::Status CallSomewhere(const Method& method, Duration timeout, Stopper* stopper, const Attempt& attempt);
  absl::Status Cannot(const Endpoint& endpoint, std::string_view method, const grpc::Status& status) const;

  const EtcdOptions options_;
  const Clock& clock_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  Family<Counter>& calls_;
  Family<Histogram>& seconds_;
  Family<Counter>& renewals_;
  Counter& watch_restarts_;
  Gauge& reachable_;

  Mutex mu_;  // a leaf
  size_t present_ ABSL_GUARDED_BY(mu_) = 0;
  std::string token_ ABSL_GUARDED_BY(mu_);
  std::function<double()> random_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::state::etcd
