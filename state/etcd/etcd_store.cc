#include "state/etcd/etcd_store.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "state/etcd/connection.h"
#include "state/etcd/encoding.h"
#include "state/etcd/lease_session.h"
#include "state/etcd/prefix_watch.h"
#include "state/table.h"

namespace sluice::state {
namespace {

class Handle final : public Subscription {
 public:
  explicit Handle(std::shared_ptr<etcd::PrefixWatch> watch) : watch_(std::move(watch)) {}
  ~Handle() override { watch_->Stop(); }

 private:
  const std::shared_ptr<etcd::PrefixWatch> watch_;
};

}  // namespace

EtcdStore::EtcdStore(std::shared_ptr<etcd::Connection> connection) : connection_(std::move(connection)) {}

absl::StatusOr<std::unique_ptr<EtcdStore>> EtcdStore::Open(EtcdOptions options, const Clock& clock,
                                                           std::function<double()> random, MetricsRegistry& metrics) {
  SLUICE_ASSIGN_OR_RETURN(auto connection,
                          etcd::Connection::Create(std::move(options), clock, std::move(random), metrics));
  return std::unique_ptr<EtcdStore>(new EtcdStore(std::move(connection)));
}

EtcdStore::~EtcdStore() {
  std::vector<std::weak_ptr<etcd::PrefixWatch>> watches;
  {
    MutexLock lock(mu_);
    watches.swap(watches_);
  }
  for (const auto& weak : watches) {
    if (const auto watch = weak.lock()) watch->Stop();
  }
}

absl::StatusOr<Entry> EtcdStore::Get(std::string_view key) {
  etcdserverpb::RangeRequest request;
  request.set_key(connection_->options().prefix + std::string(key));
  etcdserverpb::RangeResponse response;
  SLUICE_RETURN_IF_ERROR(connection_->Call(etcd::kRange, connection_->options().timeout, nullptr,
                                           [&](etcd::Endpoint& endpoint, grpc::ClientContext& context) {
                                             return endpoint.kv->Range(&context, request, &response);
                                           }));
  if (response.kvs().empty()) return absl::NotFoundError(fmt::format("no key '{}' in the state store", key));
  return etcd::ToEntry(response.kvs(0), connection_->options().prefix);
}

absl::StatusOr<Listing> EtcdStore::List(std::string_view prefix) {
  return etcd::ListPrefix(*connection_, prefix, nullptr);
}

absl::StatusOr<uint64_t> EtcdStore::Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) {
  SLUICE_RETURN_IF_ERROR(CheckChanges(changes, fence));
  const etcdserverpb::TxnRequest request = etcd::EncodeCommit(changes, fence, connection_->options().prefix);
  etcdserverpb::TxnResponse response;
  bool sent = false;
  const absl::Status status = connection_->Call(etcd::kCommit, connection_->options().timeout, nullptr,
                                                [&](etcd::Endpoint& endpoint, grpc::ClientContext& context) {
                                                  sent = true;
                                                  return endpoint.kv->Txn(&context, request, &response);
                                                });
  if (absl::IsUnavailable(status) && sent) return LookWhetherItHappened(changes, status);
  if (!status.ok()) return status;
  if (!response.succeeded()) return etcd::ConflictOf(changes, fence, response);
  return static_cast<uint64_t>(response.header().revision());
}

// Nobody but this process puts entries of its sessions: where they are as we put them, we did.
absl::StatusOr<uint64_t> EtcdStore::LookWhetherItHappened(const std::vector<Change>& changes,
                                                          const absl::Status& unknown) {
  uint64_t revision = 0;
  for (const Change& change : changes) {
    if (!change.value || change.session == nullptr) return unknown;
    const absl::StatusOr<Entry> entry = Get(change.key);
    const bool ours = entry.ok() && entry->value == *change.value && entry->session == change.session->name() &&
                      entry->revision > change.expected && (revision == 0 || entry->revision == revision);
    if (!ours) return unknown;
    revision = entry->revision;
  }
  return revision;
}

absl::StatusOr<std::unique_ptr<Session>> EtcdStore::BeginSession(Duration ttl) {
  return etcd::LeaseSession::Begin(connection_, ttl);
}

std::unique_ptr<Subscription> EtcdStore::Watch(std::string_view prefix, WatchCallback callback) {
  auto watch = std::make_shared<etcd::PrefixWatch>(connection_, prefix, std::move(callback));
  {
    MutexLock lock(mu_);
    std::erase_if(watches_, [](const auto& weak) { return weak.expired(); });
    watches_.push_back(watch);
  }
  return std::make_unique<Handle>(std::move(watch));
}

}  // namespace sluice::state
