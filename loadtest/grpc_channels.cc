#include "loadtest/grpc_channels.h"

#include <algorithm>

#include "base/files.h"
#include "fmt/format.h"

namespace sluice::loadtest {
namespace {

constexpr auto kReconnectWait = std::chrono::milliseconds(300);  // a little over the first backoff

}  // namespace

absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> OpenChannels(const TargetOptions& options) {
  const size_t colon = options.url.find("://");
  const bool tls = colon != std::string::npos && colon > 0 && options.url[colon - 1] == 's';
  const std::string host = colon == std::string::npos ? options.url : options.url.substr(colon + 3);
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (tls) {
    grpc::SslCredentialsOptions ssl;
    if (!options.ca_file.empty()) {
      auto text = ReadTextFile(options.ca_file);
      if (!text.ok()) {
        return absl::InvalidArgumentError(fmt::format("the CA file {}", std::string(text.status().message())));
      }
      if (text->find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
        return absl::InvalidArgumentError(fmt::format("the CA file '{}' holds no PEM certificate", options.ca_file));
      }
      ssl.pem_root_certs = *std::move(text);
    }
    credentials = grpc::SslCredentials(ssl);
  }
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < options.connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else equal channels share one connection
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);  // engines that are starting, or restarted
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
    channels.push_back(grpc::CreateCustomChannel(host, credentials, arguments));
  }
  return channels;
}

void PrepareContext(const TargetOptions& options, const Request& request, grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + request.timeout);
  if (!options.token.empty()) context.AddMetadata("authorization", "Bearer " + options.token);
  if (!request.id.empty()) context.AddMetadata("x-request-id", request.id);
  for (const auto& [name, value] : options.headers) context.AddMetadata(name, value);
}

absl::Status ToAbslStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::Status WaitForChannel(grpc::Channel& channel, const std::string& url, Duration timeout,
                            const std::atomic<bool>& stop) {
  using std::chrono::system_clock;
  const auto deadline = system_clock::now() + timeout;
  // False: the channel was still in `state` at `until`, or it is time to stop.
  const auto changes = [&](grpc_connectivity_state state, system_clock::time_point until) {
    while (!stop.load(std::memory_order_relaxed) && system_clock::now() < until) {
      if (channel.WaitForStateChange(state, std::min(until, system_clock::now() + kStopInterval))) return true;
    }
    return false;
  };
  grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY && state != GRPC_CHANNEL_TRANSIENT_FAILURE && changes(state, deadline)) {
    state = channel.GetState(true);
  }
  if (state == GRPC_CHANNEL_READY) return absl::OkStatus();
  // Whoever asks again wants to see the reconnect, and gRPC's own poller looks every 5 s only.
  if (changes(state, std::min(deadline, system_clock::now() + kReconnectWait)) &&
      channel.GetState(true) == GRPC_CHANNEL_READY) {
    return absl::OkStatus();
  }
  if (stop.load(std::memory_order_relaxed)) return absl::CancelledError("interrupted");
  return absl::UnavailableError(
      fmt::format("no gRPC connection to {}: is a server listening there, and does it speak {}?", url,
                  url.find("s://") != std::string::npos ? "TLS with this CA" : "plaintext"));
}

}  // namespace sluice::loadtest
