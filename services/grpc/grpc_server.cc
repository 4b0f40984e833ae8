#include "services/grpc/grpc_server.h"

#include <fmt/format.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "services/grpc/call_context.h"
#include "services/grpc/credentials.h"
#include "services/grpc/doors.h"
#include "services/grpc/flag_events.h"
#include "services/grpc/flagd_service.h"

namespace sluice::services {
namespace {

constexpr Duration kHandshakeTimeout = std::chrono::seconds(10);
// Finds peers that vanished without a word, so that their streams end.
constexpr Duration kKeepaliveTime = std::chrono::seconds(60);
constexpr Duration kKeepaliveTimeout = std::chrono::seconds(20);
constexpr int kMaxPingStrikes = 2;
// What flagd's clients are used to.
constexpr Duration kFlagKeepAlive = std::chrono::seconds(20);
// For the last bytes of calls that are done, and for watchers of health, which would stay for ever.
constexpr Duration kFlushGrace = std::chrono::milliseconds(500);

int ToMillisArgument(Duration d) {
  const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
  return static_cast<int>(std::clamp<int64_t>(ms, 0, std::numeric_limits<int>::max()));
}

// gRPC has these as process-wide switches read by every builder; both only ever go on.
void EnablePluginsOnce() {
  static const bool enabled = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)enabled;
}

void SetLimits(const config::ServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  // The size limit looks at a message after it was unpacked, so 4 MiB of gzip could fill the memory first. Refused with
  // UNIMPLEMENTED, which clients know to mean: send it plain.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             ToMillisArgument(options.min_client_ping_interval));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kMaxPingStrikes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, ToMillisArgument(kKeepaliveTime));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, ToMillisArgument(kKeepaliveTimeout));
  if (options.max_connection_age > Duration::zero()) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, ToMillisArgument(options.max_connection_age));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               ToMillisArgument(options.max_connection_age_grace));
  }
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, ToMillisArgument(kHandshakeTimeout));
  // A second server on the port must fail, not share its connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace

struct GrpcServer::Impl {
  Impl(std::vector<config::ApiKey> keys, const DoorContext& doors)
      : guard(std::move(keys), doors.clock, &doors.gate, doors.targeting_key) {}

  // Destroyed last to first: the server before the services before the guard.
  CallGuard guard;
  std::unique_ptr<FlagEvents> flag_events;
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  std::atomic<bool> shut_down{false};  // atomic: Shutdown may race with itself

  void SetHealth(const char* service, bool serving) {
    server->GetHealthCheckService()->SetServingStatus(service, serving);
  }
};

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const config::ServerOptions& options,
                                                              std::vector<config::ApiKey> keys, DoorContext doors) {
  SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::ServerCredentials> credentials, MakeServerCredentials(options.tls));
  EnablePluginsOnce();
  auto impl = std::make_unique<Impl>(std::move(keys), doors);
  impl->services.push_back(MakeInferenceService(doors, impl->guard));
  impl->services.push_back(MakeAdminService(doors, impl->guard));
  impl->services.push_back(MakeFlagService(doors, impl->guard));
  impl->services.push_back(MakeQosService(doors, impl->guard));
  impl->services.push_back(MakeRolloutService(doors, impl->guard));
  impl->services.push_back(MakeOipService(doors, impl->guard));
  impl->flag_events = std::make_unique<FlagEvents>(doors.gate, options.max_flag_event_streams, kFlagKeepAlive);
  for (auto& service : MakeFlagdServices(doors, impl->guard, *impl->flag_events)) {
    impl->services.push_back(std::move(service));
  }

  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  int port = 0;
  builder.AddListeningPort(options.grpc_address, std::move(credentials), &port);
  for (const auto& service : impl->services) builder.RegisterService(service.get());
  impl->server = builder.BuildAndStart();
  if (impl->server == nullptr) {
    return absl::UnavailableError(ToAbsl(fmt::format(
        "cannot listen for gRPC on '{}': the address is in use, or not one of this machine", options.grpc_address)));
  }
  SLUICE_CHECK(impl->server->GetHealthCheckService() != nullptr, "the default health service is enabled");
  impl->port = absl::StartsWith(options.grpc_address, "unix") ? 0 : port;
  impl->SetHealth("liveness", true);
  std::unique_ptr<GrpcServer> server(new GrpcServer(std::move(impl)));
  server->SetReady(false);
  return server;
}

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { Shutdown(Duration::zero()); }

int GrpcServer::port() const { return impl_->port; }

void GrpcServer::SetReady(bool ready) {
  impl_->SetHealth("", ready);
  impl_->SetHealth("readiness", ready);
}

void GrpcServer::EndEventStreams() { impl_->flag_events->Shutdown(); }

int GrpcServer::open_streams() const { return impl_->guard.open_calls(); }

void GrpcServer::Shutdown(Duration grace) {
  if (impl_->shut_down.exchange(true)) return;
  SetReady(false);
  EndEventStreams();
  // Still listening: probes see `liveness`, and admission tells late callers that it drains and when to retry.
  impl_->guard.WaitIdle(grace);
  // A time span, so that no clock is read here; gRPC counts it from now.
  impl_->server->Shutdown(gpr_time_from_millis(ToMillisArgument(kFlushGrace), GPR_TIMESPAN));
  impl_->server->Wait();
}

}  // namespace sluice::services
