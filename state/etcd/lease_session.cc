#include "state/etcd/lease_session.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "state/etcd/encoding.h"

namespace sluice::state::etcd {
namespace {

constexpr Duration kRevokeTimeout = std::chrono::seconds(1);

}  // namespace

bool LeaseLife::Renewed(MonoTime sent, Duration ttl, MonoTime now) {
  if (lost(now) || ttl <= Duration::zero()) {
    alive_until_ = std::min(alive_until_, now);
    return false;
  }
  ttl_ = ttl;
  alive_until_ = std::max(alive_until_, sent + ttl_);
  next_ = sent + ttl_ / 3;
  return true;
}

absl::StatusOr<std::unique_ptr<Session>> LeaseSession::Begin(std::shared_ptr<Connection> connection, Duration ttl) {
  ttl = std::clamp(ttl, kMinSessionTtl, kMaxSessionTtl);
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(std::chrono::ceil<std::chrono::seconds>(ttl).count());
  etcdserverpb::LeaseGrantResponse response;
  MonoTime sent;
  // Sent twice it leaves a lease that nobody renews, and that is gone after its ttl.
  SLUICE_RETURN_IF_ERROR(connection->Call(kGrant, connection->options().timeout, nullptr,
                                          [&](Endpoint& endpoint, grpc::ClientContext& context) {
                                            sent = connection->clock().Now();
                                            return endpoint.lease->LeaseGrant(&context, request, &response);
                                          }));
  if (response.id() == 0 || response.ttl() <= 0) {
    return absl::UnavailableError("etcd granted no lease: " + response.error());
  }
  const LeaseLife life(sent, std::chrono::seconds(response.ttl()));
  return std::unique_ptr<Session>(new LeaseSession(std::move(connection), response.id(), life));
}

LeaseSession::LeaseSession(std::shared_ptr<Connection> connection, int64_t lease, const LeaseLife& life)
    : connection_(std::move(connection)), lease_(lease), name_(SessionName(lease)), life_(life), renewer_([this] {
        Run();
      }) {}

LeaseSession::~LeaseSession() {
  stopper_.Stop();
  renewer_.join();
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease_);
  etcdserverpb::LeaseRevokeResponse response;
  // Without an answer the lease ends by itself.
  (void)connection_->Call(kRevoke, std::min(kRevokeTimeout, connection_->options().timeout), nullptr,
                          [&](Endpoint& endpoint, grpc::ClientContext& context) {
                            return endpoint.lease->LeaseRevoke(&context, request, &response);
                          });
}

MonoTime LeaseSession::alive_until() const {
  MutexLock lock(mu_);
  return life_.alive_until();
}

void LeaseSession::Run() {
  int failures = 0;
  while (true) {
    Duration wait{};
    {
      MutexLock lock(mu_);
      const MonoTime now = connection_->clock().Now();
      if (life_.lost(now)) break;
      wait = std::min(life_.next_renewal(), life_.alive_until()) - now;
    }
    if (wait > Duration::zero()) {
      if (!stopper_.WaitFor(wait)) return;
    } else if (Renew(failures + 1)) {
      failures = 0;
    } else {
      ++failures;
    }
    if (stopper_.stopped()) return;
  }
  LogWarning("session of the state store lost", {{"session", name_}});
}

bool LeaseSession::Renew(int failures) {
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease_);
  etcdserverpb::LeaseKeepAliveResponse response;
  MonoTime sent;
  Duration timeout = connection_->options().timeout;
  {
    MutexLock lock(mu_);
    timeout = std::min(timeout, life_.alive_until() - connection_->clock().Now());
  }
  const absl::Status status =
      connection_->Call(kKeepAlive, timeout / 2, &stopper_, [&](Endpoint& endpoint, grpc::ClientContext& context) {
        sent = connection_->clock().Now();
        const auto stream = endpoint.lease->LeaseKeepAlive(&context);
        const bool answered = stream->Write(request) && stream->Read(&response);
        if (answered) context.TryCancel();  // it is all that matters
        const grpc::Status end = stream->Finish();
        if (answered) return grpc::Status::OK;
        return end.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer") : end;
      });
  if (absl::IsCancelled(status)) return false;
  const MonoTime now = connection_->clock().Now();
  const Duration backoff = connection_->BackoffFor(failures);
  MutexLock lock(mu_);
  const bool renewed = status.ok() && life_.Renewed(sent, std::chrono::seconds(response.ttl()), now);
  connection_->CountRenewal(renewed);
  if (!status.ok()) life_.Failed(now, backoff);
  return renewed;
}

}  // namespace sluice::state::etcd
