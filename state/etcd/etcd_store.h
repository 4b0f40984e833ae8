// The state store in a cluster of etcd (3.4 or later), through its v3 gRPC API: for replicas on many machines.
//
// A commit is one transaction that compares the mod revision of each key; a session is a lease; a revision is etcd's.
// Reads are linearizable. All keys lie under a prefix, and nothing outside it is ever touched.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "state/etcd/etcd_options.h"
#include "state/state_store.h"

namespace sluice::state {

namespace etcd {
class Connection;
class PrefixWatch;
}  // namespace etcd

// Every call ends within the options' timeout (List and Watch: within it for each 256 entries), with UNAVAILABLE naming
// endpoint and cause where etcd is out of reach. After UNAVAILABLE from a commit it is unknown whether it happened: it
// may even happen later, when a member that hung goes on. It is known, and so returned, where the commit was never
// sent, and where all its entries belong to a session: then the store looks whether they are there. Else read the keys
// again before the next change; compare-and-set keeps that safe.
//
// One thread for each watch and each session. Callbacks of different watches may run at the same time.
class EtcdStore final : public StateStore {
 public:
  // Connects with the first call: etcd may be away. INVALID_ARGUMENT: options, or files that cannot be read. `clock`
  // and `metrics` outlive it; `random` gives numbers in [0, 1) and is called by one thread at a time.
  static absl::StatusOr<std::unique_ptr<EtcdStore>> Open(EtcdOptions options, const Clock& clock,
                                                         std::function<double()> random, MetricsRegistry& metrics);
  ~EtcdStore() override;  // ends what watches still run

  absl::StatusOr<Entry> Get(std::string_view key) override;
  absl::StatusOr<Listing> List(std::string_view prefix) override;
  absl::StatusOr<uint64_t> Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) override;
  absl::StatusOr<std::unique_ptr<Session>> BeginSession(Duration ttl) override;
  [[nodiscard]] std::unique_ptr<Subscription> Watch(std::string_view prefix, WatchCallback callback) override;

 private:
  explicit EtcdStore(std::shared_ptr<etcd::Connection> connection);
  absl::StatusOr<uint64_t> LookWhetherItHappened(const std::vector<Change>& changes, const absl::Status& unknown);

  const std::shared_ptr<etcd::Connection> connection_;
  Mutex mu_;  // a leaf
  std::vector<std::weak_ptr<etcd::PrefixWatch>> watches_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::state
