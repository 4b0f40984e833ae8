#include "services/cli/client.h"

#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <cstdlib>

#include "base/files.h"
#include "base/status.h"
#include "fmt/format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace sluice::cli {
namespace {

std::string EnvOr(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value == nullptr ? fallback : value;
}

absl::StatusOr<std::string> ReadOptional(const std::string& path) {
  if (path.empty()) return std::string();
  return ReadTextFile(path);
}

const char* CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code <= 16 ? kNames[code] : "UNKNOWN";
}

}  // namespace

absl::StatusOr<Client> Client::Connect(const Args& args) {
  Client client;
  client.server_ = args.Get("--server", EnvOr("SLUICECTL_SERVER", "127.0.0.1:8001"));
  client.token_ = args.Get("--token", EnvOr("SLUICECTL_TOKEN", ""));
  client.json_ = args.Has("--json");
  SLUICE_ASSIGN_OR_RETURN(const std::optional<double> timeout, args.Number("--timeout"));
  if (timeout.has_value()) client.timeout_ = std::chrono::milliseconds(static_cast<int64_t>(*timeout * 1000));
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (args.Has("--ca") || args.Has("--cert")) {
    grpc::SslCredentialsOptions ssl;
    SLUICE_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadOptional(args.Get("--ca")));
    SLUICE_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadOptional(args.Get("--cert")));
    SLUICE_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadOptional(args.Get("--key")));
    credentials = grpc::SslCredentials(ssl);
  }
  grpc::ChannelArguments options;
  if (args.Has("--server-name")) options.SetSslTargetNameOverride(args.Get("--server-name"));
  client.channel_ = grpc::CreateCustomChannel(client.server_, credentials, options);
  return client;
}

void Client::Prepare(grpc::ClientContext& context) const {
  context.set_deadline(std::chrono::system_clock::now() + timeout_);
  if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
}

int Client::Fail(const grpc::Status& status) const {
  google::rpc::Status all;
  all.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  google::rpc::BadRequest bad;
  bool explained = false;
  for (const auto& detail : all.details()) {
    explained |= detail.UnpackTo(&info);
    detail.UnpackTo(&retry) || detail.UnpackTo(&bad);
  }
  if (!explained && status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    std::fprintf(stderr, "sluicectl: no sluice-server answers at %s (%s)\n", server_.c_str(),
                 status.error_message().c_str());
    std::fprintf(stderr, "  start one with scripts/serve, or name another with --server HOST:PORT\n");
    return kUnreachable;
  }
  std::fprintf(stderr, "sluicectl: %s%s%s: ", CodeName(status.error_code()), info.reason().empty() ? "" : " ",
               info.reason().c_str());
  if (bad.field_violations_size() == 0) std::fprintf(stderr, "%s", status.error_message().c_str());
  std::fprintf(stderr, "\n");
  for (const auto& v : bad.field_violations()) {
    std::fprintf(stderr, "  %s: %s\n", v.field().c_str(), v.description().c_str());
  }
  if (retry.has_retry_delay()) {
    std::fprintf(stderr, "  try again in %.1f s\n",
                 static_cast<double>(retry.retry_delay().seconds()) + retry.retry_delay().nanos() / 1e9);
  }
  return kRefused;
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(message, &json, options);
  return json;
}

}  // namespace sluice::cli
