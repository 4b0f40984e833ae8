#include "state/etcd/prefix_watch.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::state::etcd {
namespace {

constexpr int64_t kPage = 256;  // entries of a read
constexpr size_t kMaxListed = 100'000;
constexpr int kMaxListings = 3;  // in a row that a compaction overtook

absl::StatusOr<Listing> ListOnce(Connection& connection, const std::string& from, const std::string& end,
                                 Stopper* stopper) {
  Listing listing;
  etcdserverpb::RangeRequest request;
  request.set_key(from);
  request.set_range_end(end);
  request.set_limit(kPage);
  while (true) {
    etcdserverpb::RangeResponse page;
    SLUICE_RETURN_IF_ERROR(connection.Call(kRange, connection.options().timeout, stopper,
                                           [&](Endpoint& endpoint, grpc::ClientContext& context) {
                                             return endpoint.kv->Range(&context, request, &page);
                                           }));
    // The later pages are of the first one's revision.
    if (listing.revision == 0) listing.revision = static_cast<uint64_t>(page.header().revision());
    for (const mvccpb::KeyValue& kv : page.kvs()) {
      listing.entries.push_back(ToEntry(kv, connection.options().prefix));
    }
    if (!page.more() || page.kvs().empty()) return listing;
    if (listing.entries.size() >= kMaxListed) {
      return absl::ResourceExhaustedError(fmt::format("etcd holds more than {} keys under '{}'", kMaxListed, from));
    }
    request.set_key(page.kvs().rbegin()->key() + '\0');
    request.set_revision(static_cast<int64_t>(listing.revision));
  }
}

}  // namespace

absl::StatusOr<Listing> ListPrefix(Connection& connection, std::string_view prefix, Stopper* stopper) {
  const std::string from = connection.options().prefix + std::string(prefix);
  absl::StatusOr<Listing> listing = absl::UnavailableError("etcd: nothing was read");
  for (int i = 0; i < kMaxListings; ++i) {
    listing = ListOnce(connection, from, RangeEnd(from), stopper);
    if (!absl::IsOutOfRange(listing.status())) return listing;
  }
  return absl::UnavailableError(listing.status().message());
}

PrefixWatch::PrefixWatch(std::shared_ptr<Connection> connection, std::string_view prefix, WatchCallback callback)
    : connection_(std::move(connection)), prefix_(prefix), callback_(std::move(callback)) {
  const bool listed = List();
  thread_ = std::thread([this, listed] {
    if (listed) Follow();
    Run();
  });
}

void PrefixWatch::Stop() {
  stopper_.Stop();
  if (thread_.joinable()) thread_.join();
}

void PrefixWatch::Run() {
  int failures = 0;
  while (!stopper_.stopped()) {
    connection_->watch_restarts().Add();
    failures = List() && Follow() ? 1 : failures + 1;
    if (!stopper_.WaitFor(connection_->BackoffFor(failures))) return;
  }
}

bool PrefixWatch::List() {
  absl::StatusOr<Listing> listing = ListPrefix(*connection_, prefix_, &stopper_);
  if (stopper_.stopped()) return false;
  if (!listing.ok()) {
    Tell(listing.status());
    return false;
  }
  const Changes changes = mirror_.Reset(*std::move(listing));
  const bool news = first_ || !fault_.ok() || !changes.put.empty() || !changes.deleted.empty();
  first_ = false;
  fault_ = absl::OkStatus();
  if (news) callback_(changes);
  return true;
}

void PrefixWatch::Tell(absl::Status fault) {
  // The next endpoint's words may be others; the code is what is new.
  if (fault.code() == fault_.code()) return;
  fault_ = std::move(fault);
  callback_(fault_);
}

bool PrefixWatch::Follow() {
  grpc::ClientContext context;
  context.AddMetadata("hasleader", "true");  // a member without a leader knows nothing new: it ends the stream
  const absl::StatusOr<Endpoint*> endpoint = connection_->Prepare(context, &stopper_);
  if (!endpoint.ok()) return false;
  const Stopper::Watching watching(&stopper_, context);
  const auto stream = (*endpoint)->watch->Watch(&context);
  etcdserverpb::WatchRequest request;
  etcdserverpb::WatchCreateRequest& create = *request.mutable_create_request();
  const std::string from = connection_->options().prefix + prefix_;
  create.set_key(from);
  create.set_range_end(RangeEnd(from));
  create.set_start_revision(static_cast<int64_t>(mirror_.revision()) + 1);
  create.set_progress_notify(true);  // so that a stream that is silent is known to live
  create.set_fragment(true);
  incomplete_.clear();
  bool follows = false;
  std::string cancelled;
  etcdserverpb::WatchResponse response;
  stream->Write(request);
  while (stream->Read(&response)) {
    if (response.canceled()) {
      cancelled = response.compact_revision() > 0
                      ? fmt::format("compacted up to revision {}", response.compact_revision())
                      : response.cancel_reason();
      context.TryCancel();
      break;
    }
    follows = true;
    Take(response);
  }
  const grpc::Status end = stream->Finish();
  if (stopper_.stopped()) return follows;
  const std::string why =
      cancelled.empty() ? std::string(connection_->StreamEnded(kWatch, **endpoint, end).message()) : cancelled;
  LogInfo("watch of the state store begins anew", {{"prefix", prefix_}, {"why", why}});
  return follows;
}

void PrefixWatch::Take(const etcdserverpb::WatchResponse& response) {
  incomplete_.insert(incomplete_.end(), response.events().begin(), response.events().end());
  if (response.fragment()) return;
  const Changes changes = mirror_.Apply(std::exchange(incomplete_, {}), connection_->options().prefix);
  if (stopper_.stopped() || (changes.put.empty() && changes.deleted.empty())) return;
  callback_(changes);
}

}  // namespace sluice::state::etcd
