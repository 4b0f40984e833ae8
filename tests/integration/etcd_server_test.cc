// Replicas that share an etcd.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/test_server.h"
#include "tests/state/etcd/etcd_process.h"

namespace sluice::test {
namespace {

grpc::Status SetTtft(TestServer& server, double percent, pb::SetFlagResponse* response) {
  pb::SetFlagRequest request;
  request.set_flag("ttft_pipeline");
  request.set_rollout_percentage(percent);
  request.set_reason("test");
  grpc::ClientContext context;
  return server.flags().Set(&context, request, response);
}

std::string LayerOfTtft(TestServer& server) {
  pb::EvaluateFlagRequest request;
  request.set_flag("ttft_pipeline");
  request.mutable_context()->set_targeting_key("u");
  pb::EvaluateFlagResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(server.flags().Evaluate(&context, request, &response).ok());
  return response.layer();
}

TEST(EtcdServerTest, StartsWithoutEtcdAndSharesOverridesWhenItIsThere) {
  state::EtcdProcess etcd;
  etcd.Kill();
  config::RuntimeConfig runtime;
  runtime.state.store = config::StateStoreKind::kEtcd;
  runtime.state.etcd.endpoints = {etcd.url()};
  runtime.state.etcd.timeout = std::chrono::milliseconds(300);
  TestServer server({.runtime = runtime});
  pb::SetFlagResponse response;
  const grpc::Status refused = SetTtft(server, 100, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(LayerOfTtft(server), "file");

  etcd.Start();
  const SystemClock clock;
  const MonoTime end = clock.Now() + std::chrono::seconds(20);
  while (!SetTtft(server, 100, &response).ok()) ASSERT_LT(clock.Now(), end);
  EXPECT_TRUE(response.kept());
  TestServer other({.runtime = runtime});
  while (LayerOfTtft(other) != "override") ASSERT_LT(clock.Now(), end);
}

}  // namespace
}  // namespace sluice::test
