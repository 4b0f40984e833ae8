#include "services/clients/flagd_sync.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "flagd/sync/v1/sync.grpc.pb.h"
#include "fmt/format.h"
#include "services/grpc/struct_codec.h"

namespace sluice::services {
namespace {

namespace api = ::flagd::sync::v1;

constexpr size_t kMaxDocumentBytes = 4 << 20;
constexpr size_t kMaxErrorBytes = 512;

int Millis(Duration d) {
  return static_cast<int>(std::clamp<int64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(d).count(), 1,
                                              std::numeric_limits<int>::max()));
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return std::string();
  auto text = ReadTextFile(path);
  if (text.ok() && !text->empty()) return text;
  return absl::InvalidArgumentError(ToAbsl(fmt::format("flagd sync: cannot read '{}', or it is empty", path)));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const FlagdSyncOptions& options) {
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("flagd sync: a certificate needs its key, and a key its certificate");
  }
  if (!options.tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions tls;
  SLUICE_ASSIGN_OR_RETURN(tls.pem_root_certs, ReadPem(options.ca_file));
  SLUICE_ASSIGN_OR_RETURN(tls.pem_cert_chain, ReadPem(options.certificate_file));
  SLUICE_ASSIGN_OR_RETURN(tls.pem_private_key, ReadPem(options.key_file));
  return grpc::SslCredentials(tls);
}

std::shared_ptr<grpc::Channel> Connect(const FlagdSyncOptions& options,
                                       const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  // The document's own limit refuses what is larger with a better message; this one is for what is absurd.
  arguments.SetMaxReceiveMessageSize(2 * kMaxDocumentBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(options.ping_interval));
  // Waiting is done here, with jitter; the channel must be ready to try when that is over.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  return grpc::CreateCustomChannel(options.target, credentials, arguments);
}

}  // namespace

Duration SyncBackoff(const FlagdSyncOptions& options, int failures, double random) {
  const double cap = static_cast<double>(options.max_backoff.count());
  const double full = static_cast<double>(options.initial_backoff.count()) * std::exp2(std::clamp(failures - 1, 0, 62));
  return Duration(static_cast<int64_t>(std::min(full, cap) * (1 - random / 2)));
}

struct FlagdSync::Impl {
  Impl(FlagdSyncOptions o, const Clock& c, std::function<double()> r, Callback cb,
       const std::shared_ptr<grpc::ChannelCredentials>& credentials)
      : options(std::move(o)),
        clock(c),
        random(std::move(r)),
        callback(std::move(cb)),
        stub(api::FlagSyncService::NewStub(Connect(options, credentials))),
        lost_at(clock.Now()) {}

  void Run() ABSL_LOCKS_EXCLUDED(mu);
  bool ReadStream() ABSL_LOCKS_EXCLUDED(mu);
  bool Take(const api::SyncFlagsResponse& response) ABSL_LOCKS_EXCLUDED(mu);
  void EndStream(const std::string& error) ABSL_LOCKS_EXCLUDED(mu);

  const FlagdSyncOptions options;
  const Clock& clock;
  const std::function<double()> random;
  const Callback callback;
  const std::unique_ptr<api::FlagSyncService::Stub> stub;
  std::string last_good;  // reading thread only

  mutable Mutex mu;
  CondVar wake;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  grpc::ClientContext* open ABSL_GUARDED_BY(mu) = nullptr;  // of the stream being read
  MonoTime lost_at ABSL_GUARDED_BY(mu);
  Status status ABSL_GUARDED_BY(mu);
  std::thread reader;
};

void FlagdSync::Impl::Run() {
  int failures = 0;
  while (true) {
    failures = ReadStream() ? 1 : std::min(failures + 1, 63);
    const MonoTime end = SaturatingAdd(clock.Now(), SyncBackoff(options, failures, random()));
    MutexLock lock(mu);
    while (!stopping) {
      const Duration left = end - clock.Now();
      if (left <= Duration::zero()) break;
      wake.WaitFor(mu, left);
    }
    if (stopping) return;
  }
}

// One stream, until it ends; whether it delivered something good.
bool FlagdSync::Impl::ReadStream() {
  grpc::ClientContext context;
  if (!options.selector.empty()) context.AddMetadata("flagd-selector", options.selector);
  {
    MutexLock lock(mu);
    if (stopping) return false;
    open = &context;
    ++status.streams;
  }
  api::SyncFlagsRequest request;
  request.set_provider_id(options.provider_id);
  const auto stream = stub->SyncFlags(&context, request);
  api::SyncFlagsResponse response;
  bool good = false;
  while (stream->Read(&response)) good |= Take(response);
  const grpc::Status ended = stream->Finish();
  EndStream(ended.ok() ? "the control plane ended the stream" : ended.error_message());
  return good;
}

bool FlagdSync::Impl::Take(const api::SyncFlagsResponse& response) {
  const nlohmann::json context = StructToJson(response.sync_context());
  // Unordered in protobuf, ordered as JSON: equal documents have equal text.
  std::string text = response.flag_configuration() + context.dump();
  const bool same = text == last_good;
  absl::StatusOr<RemoteFlags> remote = RemoteFlags{};
  if (!same) {
    auto parsed = flags::flagd::ParseDefinitions(
        response.flag_configuration(),
        {.json = {.max_bytes = kMaxDocumentBytes}, .refuse_bad_rules = false, .static_context = context});
    if (parsed.ok()) {
      remote->definitions = *std::move(parsed);
    } else {
      remote = parsed.status();
    }
  }
  const bool good = remote.ok();
  {
    MutexLock lock(mu);
    status.connected = true;
    ++(good ? status.updates : status.refused);
    if (!good) status.last_error = std::string(remote.status().message()).substr(0, kMaxErrorBytes);
  }
  if (good) last_good = std::move(text);
  if (!same) callback(std::move(remote));
  return good;
}

void FlagdSync::Impl::EndStream(const std::string& error) {
  {
    MutexLock lock(mu);
    open = nullptr;
    if (stopping) return;
    if (std::exchange(status.connected, false)) lost_at = clock.Now();
    status.last_error = error.substr(0, kMaxErrorBytes);
  }
  LogWarning("flagd sync lost", {{"target", options.target}, {"error", error.substr(0, kMaxErrorBytes)}});
}

absl::StatusOr<std::unique_ptr<FlagdSync>> FlagdSync::Start(FlagdSyncOptions options, const Clock& clock,
                                                            std::function<double()> random, Callback callback) {
  if (options.target.empty()) return absl::InvalidArgumentError("flagd sync: the target is empty");
  SLUICE_ASSIGN_OR_RETURN(const auto credentials, Credentials(options));
  auto impl = std::make_unique<Impl>(std::move(options), clock, std::move(random), std::move(callback), credentials);
  impl->reader = std::thread([self = impl.get()] { self->Run(); });
  return std::unique_ptr<FlagdSync>(new FlagdSync(std::move(impl)));
}

FlagdSync::FlagdSync(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

FlagdSync::~FlagdSync() {
  {
    MutexLock lock(impl_->mu);
    impl_->stopping = true;
    if (impl_->open != nullptr) impl_->open->TryCancel();
  }
  impl_->wake.SignalAll();
  impl_->reader.join();
}

FlagdSync::Status FlagdSync::status() const {
  MutexLock lock(impl_->mu);
  Status status = impl_->status;
  status.stale = !status.connected && impl_->clock.Now() - impl_->lost_at >= impl_->options.stale_after;
  return status;
}

}  // namespace sluice::services
