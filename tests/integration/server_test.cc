// One request through every step, over a real socket, on the synthetic backend.
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "tests/integration/test_server.h"

namespace sluice::test {
namespace {

using ::testing::HasSubstr;

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  return details;
}

template <typename T>
bool Detail(const grpc::Status& status, T& out) {
  const google::rpc::Status all = Details(status);
  for (const auto& any : all.details()) {
    if (any.UnpackTo(&out)) return true;
  }
  return false;
}

std::string Reason(const grpc::Status& status) {
  google::rpc::ErrorInfo info;
  return Detail(status, info) ? info.reason() : "";
}

TEST(ServerTest, StreamsTokensWithUsageTimingsAndTrailers) {
  TestServer server({.ttft_bps = flags::kBuckets});
  pb::GenerateRequest request = Greedy("hello there", 20);
  request.set_user("ada");
  request.set_request_id("req-1");
  const Reply reply = Generate(server.inference(), request);
  ASSERT_TRUE(reply.status.ok()) << reply.status.error_message();
  EXPECT_EQ(reply.token_ids.size(), 20U);
  EXPECT_FALSE(reply.text.empty());
  EXPECT_EQ(reply.finish.reason(), "length");
  EXPECT_EQ(reply.finish.usage().output_tokens(), 20);
  EXPECT_GT(reply.finish.usage().prompt_tokens(), 0);
  EXPECT_GE(reply.finish.timings().total_ms(), reply.finish.timings().ttft_ms());
  EXPECT_EQ(reply.finish.pipeline(), "ttft");
  EXPECT_EQ(reply.Trailer("sluice-pipeline"), "ttft");
  EXPECT_EQ(reply.Trailer("sluice-request-id"), "req-1");
  EXPECT_THAT(reply.Trailer("sluice-flags"), HasSubstr("ttft_pipeline=on"));
  EXPECT_THAT(reply.Trailer("sluice-qos"), HasSubstr("admitted;class=standard"));
}

TEST(ServerTest, TheGateChoosesThePipelineAndBothSayTheSame) {
  TestServer server({.ttft_bps = flags::kBuckets / 2});
  int ttft = 0;
  std::string expected;
  for (int i = 0; i < 40; ++i) {
    pb::GenerateRequest request = Greedy("the same prompt for everybody", 12);
    request.set_user("user-" + std::to_string(i));
    const Reply first = Generate(server.inference(), request);
    const Reply again = Generate(server.inference(), request);
    ASSERT_TRUE(first.status.ok());
    EXPECT_EQ(first.finish.pipeline(), again.finish.pipeline()) << "sticky by user";
    if (expected.empty()) expected = first.text;
    EXPECT_EQ(first.text, expected);
    ttft += first.finish.pipeline() == "ttft" ? 1 : 0;
  }
  EXPECT_GT(ttft, 5);
  EXPECT_LT(ttft, 35);
}

TEST(ServerTest, EveryBadFieldIsNamedWithWhatIsAllowed) {
  TestServer server;
  pb::GenerateRequest request = Greedy("x", 5);
  request.mutable_sampling()->set_temperature(3.5F);
  request.mutable_sampling()->set_top_p(0);
  request.add_stop("");
  const Reply reply = Generate(server.inference(), request);
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(Detail(reply.status, bad));
  ASSERT_EQ(bad.field_violations_size(), 3);
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.temperature");
  EXPECT_THAT(bad.field_violations(0).description(), HasSubstr("3.5"));
}

TEST(ServerTest, UnknownModelsPromptsTooLongAndTokensOutOfRange) {
  TestServer server({.backend = {.geometry = {.slots = 4, .slot_context = 64}}});
  pb::GenerateRequest request = Greedy("x", 5);
  request.set_model("nope");
  Reply reply = Generate(server.inference(), request);
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(reply.status.error_message(), HasSubstr("there are: default"));

  reply = Generate(server.inference(), Greedy(std::string(60, 'a'), 10));
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_THAT(reply.status.error_message(), testing::AllOf(HasSubstr("max_tokens 10"), HasSubstr("64")));

  pb::GenerateRequest truncating = Greedy(std::string(600, 'a'), 10);
  truncating.set_truncate_prompt(true);
  reply = Generate(server.inference(), truncating);
  EXPECT_TRUE(reply.status.ok());
  EXPECT_EQ(reply.finish.usage().prompt_tokens(), 54);

  pb::GenerateRequest ids;
  ids.mutable_token_ids()->add_ids(3);
  ids.mutable_token_ids()->add_ids(99999);
  reply = Generate(server.inference(), ids);
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(reply.status.error_message(), HasSubstr("ids[1]: got 99999; allowed 0 to"));

  reply = Generate(server.inference(), Greedy("", 5));
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(ServerTest, AFullQueueIsRefusedWithATimeToComeBack) {
  TestServerOptions options{.backend = {.step_cost = std::chrono::milliseconds(2)}};
  options.runtime.admission.max_concurrent = 1;
  options.runtime.admission.max_queue = 1;
  TestServer server(options);
  std::vector<std::thread> clients;
  std::atomic<int> refused{0};
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      const Reply reply = Generate(server.inference(), Greedy("busy", 100));
      if (reply.status.ok()) return;
      EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_EQ(Reason(reply.status), "QUEUE_FULL");
      google::rpc::RetryInfo retry;
      EXPECT_TRUE(Detail(reply.status, retry));
      EXPECT_FALSE(reply.Trailer("grpc-retry-pushback-ms").empty());
      ++refused;
    });
  }
  for (auto& c : clients) c.join();
  EXPECT_GE(refused, 1);
}

TEST(ServerTest, DeadlinesEndWithTheirOwnCode) {
  TestServer server({.backend = {.step_cost = std::chrono::milliseconds(5)}});
  pb::GenerateRequest request = Greedy("slow", 900);
  request.set_deadline_ms(100);
  const Reply reply = Generate(server.inference(), request);
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_GT(reply.token_ids.size(), 0U);
}

TEST(ServerTest, TokenizeEmbedAndListModels) {
  TestServer server;
  grpc::ClientContext c1, c2, c3, c4;
  pb::TokenizeRequest tokenize;
  tokenize.set_text("héllo");
  pb::TokenizeResponse tokens;
  ASSERT_TRUE(server.inference().Tokenize(&c1, tokenize, &tokens).ok());
  pb::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  pb::DetokenizeResponse text;
  ASSERT_TRUE(server.inference().Detokenize(&c2, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "héllo");
  pb::EmbedRequest embed;
  embed.add_input("one");
  embed.add_input("two");
  pb::EmbedResponse embeddings;
  ASSERT_TRUE(server.inference().Embed(&c3, embed, &embeddings).ok());
  EXPECT_EQ(embeddings.embeddings_size(), 2);
  pb::ListModelsResponse models;
  ASSERT_TRUE(server.inference().ListModels(&c4, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).state(), "ready");
  EXPECT_TRUE(models.models(0).is_default());
}

std::string Health(const TestServer& server, const std::string& service) {
  auto stub = grpc::health::v1::Health::NewStub(server.Channel());
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, request, &response);
  return status.ok() ? grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status())
                     : status.error_message();
}

TEST(ServerTest, DrainFinishesWhatRunsAndRefusesTheRest) {
  TestServer server({.backend = {.step_cost = std::chrono::milliseconds(3)}, .metrics = true});
  EXPECT_EQ(Health(server, "readiness"), "SERVING");
  EXPECT_EQ(Health(server, "liveness"), "SERVING");
  std::vector<std::thread> running;
  std::atomic<int> complete{0};
  for (int i = 0; i < 4; ++i) {
    running.emplace_back([&] {
      const Reply reply = Generate(server.inference(), Greedy("running", 200));
      complete += reply.status.ok() && reply.token_ids.size() == 200 ? 1 : 0;
    });
  }
  while (Scrape(server.server().metrics_port(), "sluice_qos_running") < 4) std::this_thread::yield();
  std::thread drain([&] { server.server().Drain(std::chrono::seconds(20)); });
  while (server.server().state() != "draining") std::this_thread::yield();
  Reply refused;
  do {
    refused = Generate(server.inference(), Greedy("late", 5));
  } while (refused.status.ok());
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(refused.status), "DRAINING");
  EXPECT_EQ(Health(server, "readiness"), "NOT_SERVING");
  EXPECT_EQ(Health(server, "liveness"), "SERVING");
  for (auto& r : running) r.join();
  drain.join();
  EXPECT_EQ(complete, 4);
}

TEST(ServerTest, KeysDecideTenantClassAndModels) {
  // SHA-256 of "secret" and "root".
  TestServerOptions options;
  options.keys = {{.name = "app",
                   .token_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                   .tenant = "acme",
                   .highest_class = qos::QosClass::kBatch},
                  {.name = "ops",
                   .token_sha256 = "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2",
                   .tenant = "ops",
                   .admin = true}};
  TestServer server(options);
  pb::GenerateRequest request = Greedy("x", 3);
  request.set_priority_class(pb::PRIORITY_CLASS_SYSTEM);
  request.set_tenant("someone-else");
  EXPECT_EQ(Generate(server.inference(), request).status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  const Reply wrong = Generate(server.inference(), request, -1, {{"authorization", "Bearer nope"}});
  EXPECT_EQ(Reason(wrong.status), "TOKEN_UNKNOWN");
  const Reply right = Generate(server.inference(), request, -1, {{"authorization", "Bearer secret"}});
  ASSERT_TRUE(right.status.ok()) << right.status.error_message();
  EXPECT_THAT(right.Trailer("sluice-qos"), HasSubstr("class=batch"));

  grpc::ClientContext app, ops;
  app.AddMetadata("authorization", "Bearer secret");
  ops.AddMetadata("authorization", "Bearer root");
  pb::GetStatusResponse status;
  EXPECT_EQ(server.admin().GetStatus(&app, {}, &status).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(server.admin().GetStatus(&ops, {}, &status).ok());
  EXPECT_EQ(status.state(), "ready");
}

TEST(ServerTest, ARefusedReloadOfTheFlagsIsCountedAndChangesNothing) {
  TestServer server({.ttft_bps = flags::kBuckets, .metrics = true});
  const auto reloads = [&server](const std::string& result) {
    return Scrape(server.server().metrics_port(), "sluice_flag_reloads_total{result=\"" + result + "\"}");
  };
  const auto epoch = [&server] { return Scrape(server.server().metrics_port(), "sluice_flag_epoch"); };
  EXPECT_EQ(reloads("failed"), 0);
  EXPECT_FALSE(server.server().ReloadFlags(absl::NotFoundError("no such file"), "test").ok());
  EXPECT_EQ(reloads("failed"), 1);
  const flags::LayerContent orphan{.flags = {{.key = "ttft_pipeline", .enabled = true, .parent = "nobody"}}};
  EXPECT_EQ(server.server().ReloadFlags(orphan, "test").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(reloads("failed"), 2);
  EXPECT_EQ(reloads("ok"), 0);
  EXPECT_EQ(epoch(), 1);
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 2)).finish.pipeline(), "ttft");

  EXPECT_TRUE(server.server().ReloadFlags(flags::LayerContent{}, "test").ok());
  EXPECT_EQ(reloads("ok"), 1);
  EXPECT_EQ(epoch(), 2);
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 2)).finish.pipeline(), "baseline");
}

TEST(ServerTest, ModelsLoadOnlyFromTheirRoots) {
  TestServer server;
  grpc::ClientContext context;
  pb::LoadModelRequest request;
  request.set_name("passwd");
  request.set_path("/etc/passwd");
  pb::LoadModelResponse response;
  const grpc::Status status = server.admin().LoadModel(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Reason(status), "MODEL_PATH_NOT_ALLOWED");
}

}  // namespace
}  // namespace sluice::test
