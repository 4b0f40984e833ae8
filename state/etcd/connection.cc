#include "state/etcd/connection.h"

#include <grpc/support/time.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <utility>

#include "base/files.h"
#include "base/status.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "state/etcd/encoding.h"

namespace sluice::state::etcd {
namespace {

constexpr Duration kStopLook = std::chrono::milliseconds(50);  // how often a wait looks whether it is to stop
constexpr int kMaxReceiveBytes = 320 << 20;                    // a page of the largest entries, and room
constexpr std::string_view kPlain = "http://", kTls = "https://";

// gRPC's own clock, for its deadlines.
gpr_timespec Deadline(Duration left) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(std::max<int64_t>(left.count(), 0), GPR_TIMESPAN));
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return std::string();
  auto text = ReadTextFile(path);
  if (text.ok() && !text->empty()) return text;
  return absl::InvalidArgumentError(fmt::format("etcd: cannot read '{}', or it is empty", path));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const EtcdOptions& options, bool tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  SLUICE_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem(options.ca_file));
  SLUICE_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadPem(options.certificate_file));
  SLUICE_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadPem(options.key_file));
  return grpc::SslCredentials(ssl);
}

std::unique_ptr<Endpoint> MakeEndpoint(std::string name, const EtcdOptions& options,
                                       const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(ToMillis(options.ping_interval)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(ToMillis(options.ping_interval)) / 2);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // a watch may be silent for ever
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);   // also what a handshake may take
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  auto endpoint = std::make_unique<Endpoint>();
  endpoint->channel = grpc::CreateCustomChannel(name, credentials, arguments);
  endpoint->name = std::move(name);
  endpoint->kv = etcdserverpb::KV::NewStub(endpoint->channel);
  endpoint->lease = etcdserverpb::Lease::NewStub(endpoint->channel);
  endpoint->watch = etcdserverpb::Watch::NewStub(endpoint->channel);
  endpoint->auth = etcdserverpb::Auth::NewStub(endpoint->channel);
  return endpoint;
}

// gRPC's codes and abseil's are the same numbers.
std::string CodeName(const grpc::Status& status) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()));
}

bool Says(const grpc::Status& status, std::string_view words) {
  return status.error_message().find(words) != std::string::npos;
}

// The token is unknown (it ended, or etcd was restarted), or older than the users' last change. Nothing happened.
bool TokenRefused(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAUTHENTICATED || Says(status, "invalid auth token") ||
         Says(status, "revision of auth store is old") || Says(status, "user name is empty");
}

// Another endpoint would say the same.
bool Final(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::OUT_OF_RANGE:
    case grpc::StatusCode::FAILED_PRECONDITION:
      return true;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return Says(status, "space exceeded");
    default:
      return false;
  }
}

}  // namespace

Connection::Connection(EtcdOptions options, const Clock& clock, std::function<double()> random,
                       MetricsRegistry& metrics)
    : options_(std::move(options)),
      clock_(clock),
      calls_(metrics.AddCounter("sluice_state_calls_total", "Calls of the state store in etcd", {"method", "code"})),
      seconds_(metrics.AddHistogram("sluice_state_call_seconds", "Time of a call of the state store, all attempts",
                                    {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
                                    {"method"})),
      renewals_(metrics.AddCounter("sluice_state_session_renewals_total", "Renewals of sessions", {"outcome"})),
      watch_restarts_(
          metrics.AddCounter("sluice_state_watch_restarts_total", "Streams of watches that ended and began anew")
              .With({})),
      reachable_(metrics.AddGauge("sluice_state_reachable", "1 while calls of the state store get through").With({})),
      random_(std::move(random)) {}

absl::StatusOr<std::shared_ptr<Connection>> Connection::Create(EtcdOptions options, const Clock& clock,
                                                               std::function<double()> random,
                                                               MetricsRegistry& metrics) {
  if (options.endpoints.empty()) return absl::InvalidArgumentError("etcd: no endpoints");
  if (!options.prefix.starts_with('/') || !options.prefix.ends_with('/')) {
    return absl::InvalidArgumentError(
        fmt::format("etcd: the prefix '{}' does not begin and end with '/'", options.prefix));
  }
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("etcd: a certificate needs its key, and a key its certificate");
  }
  if (options.username.empty() != options.password_file.empty()) {
    return absl::InvalidArgumentError("etcd: a user name needs a password file, and a password file a user name");
  }
  const bool tls = options.endpoints.front().starts_with(kTls);
  SLUICE_ASSIGN_OR_RETURN(const auto credentials, Credentials(options, tls));
  std::shared_ptr<Connection> connection(new Connection(std::move(options), clock, std::move(random), metrics));
  const std::string_view scheme = tls ? kTls : kPlain;
  for (const std::string& endpoint : connection->options_.endpoints) {
    if (!endpoint.starts_with(scheme) || endpoint.size() == scheme.size()) {
      return absl::InvalidArgumentError(
          fmt::format("etcd: the endpoint '{}' is not '{}HOST:PORT' as the first one is", endpoint, scheme));
    }
    connection->endpoints_.push_back(MakeEndpoint(endpoint.substr(scheme.size()), connection->options_, credentials));
  }
  return connection;
}

Endpoint& Connection::Present() {
  MutexLock lock(mu_);
  return *endpoints_[present_];
}

void Connection::Leave(const Endpoint& endpoint) {
  MutexLock lock(mu_);
  if (endpoints_[present_].get() == &endpoint) present_ = (present_ + 1) % endpoints_.size();
}

Duration Connection::BackoffFor(int failures) {
  MutexLock lock(mu_);
  return Backoff(failures, random_());
}

absl::Status Connection::Cannot(const Endpoint& endpoint, std::string_view method, const grpc::Status& status) const {
  const std::string text =
      fmt::format("etcd at {}, {}: {} ({})", endpoint.name, method, status.error_message(), CodeName(status));
  switch (status.error_code()) {
    case grpc::StatusCode::OUT_OF_RANGE:
      return absl::OutOfRangeError(text);
    case grpc::StatusCode::NOT_FOUND:
      return absl::FailedPreconditionError(text);
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      if (Final(status)) return absl::ResourceExhaustedError(text);
      [[fallthrough]];
    default:
      return absl::UnavailableError(text);
  }
}

// Impatient: gives up where the last attempt to connect has failed, although a later one may not.
bool Connection::Connect(Endpoint& endpoint, MonoTime end, bool patient, Stopper* stopper) const {
  grpc::Channel& channel = *endpoint.channel;
  while (true) {
    const grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return true;
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE && !patient) return false;
    const Duration left = end - clock_.Now();
    if (left <= Duration::zero() || (stopper != nullptr && stopper->stopped())) return false;
    channel.WaitForStateChange(state, Deadline(std::min(left, kStopLook)));
  }
}

absl::Status Connection::AddToken(Endpoint& endpoint, MonoTime end, Stopper* stopper, grpc::ClientContext& context) {
  if (options_.username.empty()) return {};
  {
    MutexLock lock(mu_);
    if (!token_.empty()) {
      context.AddMetadata("token", token_);
      return {};
    }
  }
  absl::StatusOr<std::string> password = ReadTextFile(options_.password_file);
  if (!password.ok()) return absl::UnavailableError(password.status().message());
  if (password->ends_with('\n')) password->pop_back();
  etcdserverpb::AuthenticateRequest request;
  request.set_name(options_.username);
  request.set_password(*std::move(password));
  etcdserverpb::AuthenticateResponse response;
  grpc::ClientContext login;
  login.set_deadline(Deadline(end - clock_.Now()));
  const Stopper::Watching watching(stopper, login);
  const grpc::Status status = endpoint.auth->Authenticate(&login, request, &response);
  calls_.With({kAuthenticate.name, CodeName(status)}).Add();
  if (Says(status, "authentication is not enabled")) return {};
  if (!status.ok()) return Cannot(endpoint, kAuthenticate.name, status);
  MutexLock lock(mu_);
  token_ = response.token();
  context.AddMetadata("token", token_);
  return {};
}

void Connection::DropToken() {
  MutexLock lock(mu_);
  token_.clear();
}

grpc::Status Connection::TryAt(Endpoint& endpoint, MonoTime end, Stopper* stopper, const Attempt& attempt) {
  grpc::Status status;
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    if (const absl::Status token = AddToken(endpoint, end, stopper, context); !token.ok()) {
      return {grpc::StatusCode::UNAUTHENTICATED, std::string(token.message())};
    }
    context.set_deadline(Deadline(end - clock_.Now()));
    const Stopper::Watching watching(stopper, context);
    status = attempt(endpoint, context);
    if (status.ok() || !TokenRefused(status) || options_.username.empty()) return status;
    DropToken();
  }
  return status;
}

absl::Status Connection::CallSomewhere(const Method& method, Duration timeout, Stopper* stopper,
                                       const Attempt& attempt) {
  const MonoTime end = SaturatingAdd(clock_.Now(), timeout);
  absl::Status last;
  // Once around for whoever answers at once, and once more with patience.
  const size_t tries = 2 * endpoints_.size();
  for (size_t i = 0; i < tries; ++i) {
    if (stopper != nullptr && stopper->stopped()) return absl::CancelledError("the store stops");
    const MonoTime now = clock_.Now();
    if (now >= end) break;
    Endpoint& endpoint = Present();
    const bool patient = i >= endpoints_.size();
    const MonoTime share = now + (end - now) / static_cast<int64_t>(patient ? tries - i : endpoints_.size());
    if (!Connect(endpoint, share, patient, stopper)) {
      // Nothing was sent.
      if (last.ok()) last = absl::UnavailableError(fmt::format("etcd at {}: cannot connect", endpoint.name));
      Leave(endpoint);
      continue;
    }
    const grpc::Status status = TryAt(endpoint, method.repeatable && !patient ? share : end, stopper, attempt);
    if (status.ok()) return {};
    last = Cannot(endpoint, method.name, status);
    if (Final(status)) return last;
    Leave(endpoint);
    if (!method.repeatable) return last;
  }
  return last;
}

absl::Status Connection::Call(const Method& method, Duration timeout, Stopper* stopper, const Attempt& attempt) {
  const MonoTime begun = clock_.Now();
  const absl::Status status = CallSomewhere(method, timeout, stopper, attempt);
  calls_.With({method.name, std::string(absl::StatusCodeToString(status.code()))}).Add();
  seconds_.With({method.name}).Observe(ToSeconds(clock_.Now() - begun));
  if (!absl::IsCancelled(status)) reachable_.Set(absl::IsUnavailable(status) ? 0 : 1);
  return status;
}

absl::StatusOr<Endpoint*> Connection::Prepare(grpc::ClientContext& context, Stopper* stopper) {
  const MonoTime end = SaturatingAdd(clock_.Now(), options_.timeout);
  Endpoint& endpoint = Present();
  if (!Connect(endpoint, end, /*patient=*/false, stopper)) {
    Leave(endpoint);
    return absl::UnavailableError(fmt::format("etcd at {}: cannot connect", endpoint.name));
  }
  SLUICE_RETURN_IF_ERROR(AddToken(endpoint, end, stopper, context));
  return &endpoint;
}

absl::Status Connection::StreamEnded(const Method& method, Endpoint& endpoint, const grpc::Status& status) {
  if (status.ok()) return absl::UnavailableError(fmt::format("etcd at {} ended the stream", endpoint.name));
  if (TokenRefused(status)) DropToken();
  if (!Final(status)) Leave(endpoint);
  return Cannot(endpoint, method.name, status);
}

}  // namespace sluice::state::etcd
