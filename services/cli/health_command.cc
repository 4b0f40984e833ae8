// sluicectl health: what a probe asks when it speaks TLS, which the kubelet's own gRPC probes do not.
#include <cstdio>

#include "grpc/health/v1/health.grpc.pb.h"
#include "services/cli/client.h"

namespace sluice::cli {

const Command& HealthSpec() {
  static const Command spec = {.name = "health",
                               .operands = "",
                               .summary = "one question of grpc.health.v1; exit code 0 means SERVING",
                               .options = {{"--service", "NAME", "liveness or readiness (default)"}},
                               .examples = "  sluicectl health --service liveness --timeout 2\n"};
  return spec;
}

int HealthCommand(const Args& args) {
  const auto client = Client::Connect(args);
  if (!client.ok()) {
    std::fprintf(stderr, "sluicectl health: %s\n", std::string(client.status().message()).c_str());
    return kUsage;
  }
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(args.Get("--service", "readiness"));
  grpc::health::v1::HealthCheckResponse response;
  grpc::ClientContext context;
  client->Prepare(context);
  const auto stub = grpc::health::v1::Health::NewStub(client->channel());
  const grpc::Status status = stub->Check(&context, request, &response);
  if (!status.ok()) return client->Fail(status);
  std::puts(grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status()).c_str());
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING ? kOk : kRefused;
}

}  // namespace sluice::cli
