// The gRPC listener: its limits against abuse (docs/security.md), reflection, and where it can listen.
#include <unistd.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "inference/grpc_service.grpc.pb.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/test_server.h"
#include "tests/services/oip_messages.h"

namespace sluice::test {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using Health = grpc::health::v1::Health;

// Channels with equal arguments share a connection, unless told not to.
grpc::ChannelArguments OwnConnection() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

testing::AssertionResult Answers(TestServer& server) {
  const grpc::Status status = Generate(server.inference(), Greedy("hello", 2)).status;
  return status.ok() ? testing::AssertionSuccess()
                     : testing::AssertionFailure() << status.error_code() << " " << status.error_message();
}

TEST(ListenerTest, ReflectionNamesEveryService) {
  TestServer server;
  EXPECT_THAT(ReflectedServices(server.Channel()),
              UnorderedElementsAre("sluice.v1.InferenceService", "sluice.v1.AdminService", "sluice.v1.FlagService",
                                   "sluice.v1.QosService", "sluice.v1.RolloutService", "flagd.evaluation.v1.Service",
                                   "flagd.evaluation.v2.Service", "inference.GRPCInferenceService",
                                   "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"));
}

TEST(ListenerTest, AMessageTooLargeEndsItsCallOnly) {
  TestServerOptions options;
  options.runtime.server.max_message_bytes = 64 << 10;
  TestServer server(options);
  const std::string fits(60 << 10, 'a'), too_large(70 << 10, 'a');
  // One that fits is judged by the model's context.
  EXPECT_EQ(Generate(server.inference(), Greedy(fits, 2)).status.error_code(), StatusCode::OUT_OF_RANGE);
  const grpc::Status unary = Generate(server.inference(), Greedy(too_large, 2)).status;
  EXPECT_EQ(unary.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(unary.error_message(), HasSubstr("65536"));

  inference::ModelInferRequest request = TextRequest(too_large);
  request.set_model_name("default");
  const RawReply stream = Call(server.Channel(), {.path = "/inference.GRPCInferenceService/ModelStreamInfer",
                                                  .messages = {request.SerializeAsString()}});
  EXPECT_EQ(stream.status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << stream.status.error_message();
  EXPECT_TRUE(Answers(server));
}

// Their connection may end too: gRPC 1.51 loses its place in the headers that follow (docs/security.md).
TEST(ListenerTest, HeadersTooLargeEndTheirCallAndNobodyElses) {
  TestServerOptions options;
  options.runtime.server.max_metadata_bytes = 4 << 10;
  TestServer server(options);
  const auto with_header = [&](size_t bytes) {
    const auto stub = pb::InferenceService::NewStub(server.Channel(OwnConnection()));
    return Generate(*stub, Greedy("hello", 2), -1, {{"x-anything", std::string(bytes, 'a')}}).status;
  };
  EXPECT_TRUE(with_header(3 << 10).ok());
  EXPECT_EQ(with_header(5 << 10).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Answers(server));
}

// gRPC's clients know the limit from the server's settings, and hold further calls back until one has ended.
TEST(ListenerTest, OneConnectionCarriesNoMoreStreamsThanAllowed) {
  constexpr int kStreams = 3;
  TestServerOptions options{.backend = {.step_cost = std::chrono::milliseconds(20)}};
  options.runtime.server.max_streams_per_connection = kStreams;
  TestServer server(options);
  const auto crowded = pb::InferenceService::NewStub(server.Channel(OwnConnection()));
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::GenerateResponse>>> streams;
  pb::GenerateResponse message;
  for (int i = 0; i < kStreams; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(crowded->Generate(contexts.back().get(), Greedy("long", 900)));
    ASSERT_TRUE(streams.back()->Read(&message));
  }
  pb::ListModelsResponse models;
  grpc::ClientContext held_back;
  held_back.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  EXPECT_EQ(crowded->ListModels(&held_back, {}, &models).error_code(), StatusCode::DEADLINE_EXCEEDED);
  grpc::ClientContext elsewhere;
  EXPECT_TRUE(server.inference().ListModels(&elsewhere, {}, &models).ok()) << "another connection has its own streams";
  contexts[0]->TryCancel();
  grpc::ClientContext next;
  EXPECT_TRUE(crowded->ListModels(&next, {}, &models).ok());
  for (int i = 0; i < kStreams; ++i) {
    contexts[i]->TryCancel();
    EXPECT_EQ(streams[i]->Finish().error_code(), StatusCode::CANCELLED);
  }
}

TEST(ListenerTest, ClientsThatPingTooOftenAreCutOff) {
  TestServer server;  // allows a ping every 10 s
  grpc::ChannelArguments pinging = OwnConnection();
  pinging.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10);  // gRPC's clients go no faster than one a second
  pinging.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  const auto stub = Health::NewStub(server.Channel(pinging));
  grpc::ClientContext context;
  const auto watch = stub->Watch(&context, {});  // silent after its first answer
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_FALSE(watch->Read(&response));
  const grpc::Status status = watch->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("oo many pings")) << "GOAWAY with ENHANCE_YOUR_CALM";
  EXPECT_TRUE(Answers(server));
}

TEST(ListenerTest, ListensOnAUnixSocket) {
  std::string folder = ::testing::TempDir() + "sluice-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  {
    TestServer server({.grpc_address = "unix:" + folder + "/grpc.sock"});
    EXPECT_EQ(server.server().grpc_port(), 0);
    EXPECT_TRUE(Answers(server));
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sluice::test
