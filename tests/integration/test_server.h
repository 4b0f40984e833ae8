// The whole server in this process on a free loopback port, with real gRPC over real sockets.
#pragma once

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "config/config_loader.h"
#include "config/qos_file.h"
#include "config/rollout_file.h"
#include "engine/backend/synthetic_backend.h"
#include "gtest/gtest.h"
#include "services/server.h"
#include "sluice/v1/admin.grpc.pb.h"
#include "sluice/v1/flags.grpc.pb.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::test {

namespace pb = ::sluice::v1;

struct TestServerOptions {
  engine::SyntheticOptions backend;
  config::RuntimeConfig runtime;
  std::vector<config::ApiKey> keys;
  flags::RolloutBps ttft_bps = 0;
  engine::BackendFactory make_backend;  // empty: synthetic with `backend`
  std::string model_path = "synthetic:";
  std::string grpc_address = "127.0.0.1:0";
  std::string flags_file;              // in place of the flags above; watched
  flags::LayerContent flag_variables;  // what the environment says
  std::string qos_file;                // policies and quotas; watched
  std::string rollouts_file;           // watched
  bool enforce_policies = false;       // the flag qos_policy without dry_run
  const Clock* clock = nullptr;        // in place of the system's; outlives the server
  bool metrics = false;                // needed for Scrape; the listener takes two seconds to close
};

class TestServer {
 public:
  explicit TestServer(TestServerOptions o = {}) {
    services::ServerParts parts;
    parts.runtime = o.runtime;
    parts.runtime.server.grpc_address = o.grpc_address;
    parts.runtime.server.metrics_address = o.metrics ? "127.0.0.1:0" : "";
    if (parts.runtime.models.models.empty()) {
      parts.runtime.models.models = {{.name = "default", .path = o.model_path, .geometry = o.backend.geometry}};
    }
    parts.flags[flags::Layer::kFile].flags = {
        {.key = "phase5", .enabled = true, .rollout_bps = flags::kBuckets, .salt = "phase5"},
        {.key = "ttft_pipeline",
         .enabled = true,
         .rollout_bps = o.ttft_bps,
         .salt = "ttft",
         .parent = "phase5",
         .features = {{"warmup_queue", true}, {"kv_prep", true}}},
        {.key = "qos_policy",
         .enabled = true,
         .rollout_bps = flags::kBuckets,
         .salt = "qos",
         .dry_run = !o.enforce_policies,
         .parent = "phase5"}};
    if (!o.qos_file.empty()) {
      auto qos = config::LoadQosFile(o.qos_file, /*epoch=*/1);
      SLUICE_CHECK(qos.ok(), "the test's policies are valid");
      parts.qos = *std::move(qos);
      parts.qos_file = o.qos_file;
    }
    if (!o.rollouts_file.empty()) {
      auto rollouts = config::LoadRolloutFile(o.rollouts_file);
      SLUICE_CHECK(rollouts.ok(), "the test's rollouts are valid");
      parts.rollouts = *std::move(rollouts);
      parts.rollouts_file = o.rollouts_file;
    }
    if (!o.flags_file.empty()) {
      auto layers = config::LoadFlagLayers(o.flags_file, nullptr);
      SLUICE_CHECK(layers.ok(), "the test's flags are valid");
      parts.flags = *std::move(layers);
      parts.flag_files.yaml = o.flags_file;
    }
    parts.flags[flags::Layer::kEnv] = o.flag_variables;
    parts.keys = o.keys;
    parts.probe = [](const std::string&) { return absl::OkStatus(); };
    parts.make_backend =
        o.make_backend
            ? o.make_backend
            : [backend = o.backend](const engine::ModelSpec& spec) -> absl::StatusOr<std::unique_ptr<engine::Backend>> {
      engine::SyntheticOptions options = backend;
      options.geometry = spec.geometry;
      return std::make_unique<engine::SyntheticBackend>(options, [](Duration d) { std::this_thread::sleep_for(d); });
    };
    auto server = services::Server::Start(std::move(parts), o.clock == nullptr ? clock_ : *o.clock);
    SLUICE_CHECK(server.ok(), "the test server starts");
    server_ = *std::move(server);
    const int port = server_->grpc_port();
    address_ = port == 0 ? o.grpc_address : "127.0.0.1:" + std::to_string(port);
    while (server_->state() == "starting") std::this_thread::yield();
    inference_ = pb::InferenceService::NewStub(Channel());
    admin_ = pb::AdminService::NewStub(Channel());
    flags_ = pb::FlagService::NewStub(Channel());
  }

  std::shared_ptr<grpc::Channel> Channel(const grpc::ChannelArguments& arguments = {}) const {
    return grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
  }
  pb::InferenceService::Stub& inference() { return *inference_; }
  pb::AdminService::Stub& admin() { return *admin_; }
  pb::FlagService::Stub& flags() { return *flags_; }
  services::Server& server() { return *server_; }
  const std::string& address() const { return address_; }
  void Stop() { server_.reset(); }

 private:
  SystemClock clock_;
  std::unique_ptr<services::Server> server_;
  std::string address_;
  std::unique_ptr<pb::InferenceService::Stub> inference_;
  std::unique_ptr<pb::AdminService::Stub> admin_;
  std::unique_ptr<pb::FlagService::Stub> flags_;
};

// One finished Generate call.
struct Reply {
  grpc::Status status;
  std::string text;
  std::vector<int> token_ids;
  pb::Finish finish;
  int messages = 0;
  std::multimap<std::string, std::string> trailers;

  std::string Trailer(const std::string& key) const {
    const auto it = trailers.find(key);
    return it == trailers.end() ? "" : it->second;
  }
};

inline pb::GenerateRequest Greedy(const std::string& prompt, int max_tokens) {
  pb::GenerateRequest request;
  request.set_prompt(prompt);
  request.set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(0);
  request.set_return_token_ids(true);
  return request;
}

// Reads to the end, or until `stop_after` messages and then cancels.
inline Reply Generate(pb::InferenceService::Stub& stub, const pb::GenerateRequest& request, int stop_after = -1,
                      const std::map<std::string, std::string>& metadata = {}) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
  Reply reply;
  auto reader = stub.Generate(&context, request);
  pb::GenerateResponse message;
  while (reader->Read(&message)) {
    ++reply.messages;
    reply.text += message.text();
    reply.token_ids.insert(reply.token_ids.end(), message.token_ids().begin(), message.token_ids().end());
    if (message.has_finish()) reply.finish = message.finish();
    if (reply.messages == stop_after) context.TryCancel();
  }
  reply.status = reader->Finish();
  for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
    reply.trailers.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  }
  return reply;
}

// The value of a series in the server's own /metrics text, or -1.
double Scrape(int port, const std::string& series);

}  // namespace sluice::test
