// API keys at every door: who gets in, and what a key decides.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "inference/grpc_service.grpc.pb.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/test_server.h"
#include "tests/services/oip_messages.h"

namespace sluice::test {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Headers kApp = {{"authorization", "Bearer secret"}};
const Headers kRival = {{"authorization", "Bearer rival"}};
const Headers kOps = {{"authorization", "Bearer root"}};

// Hashes by sha256sum. The default model, "large", is not one of app's.
TestServerOptions TwoModelsAndThreeKeys(bool metrics) {
  TestServerOptions options{.ttft_bps = flags::kBuckets, .metrics = metrics};
  const engine::KvGeometry geometry{.slots = 8, .slot_context = 256};
  options.runtime.models.models = {
      {.name = "large", .path = "synthetic:", .geometry = geometry, .preload = false},
      {.name = "small", .path = "synthetic:", .geometry = geometry},
  };
  options.keys = {{.name = "app",
                   .token_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                   .tenant = "acme",
                   .highest_class = qos::QosClass::kBatch,
                   .models = {"small"}},
                  {.name = "rival",
                   .token_sha256 = "1db147fa22abae8a70c94152c9ec8cb82bdd0cc8135730a11879ae9dd7ad0375",
                   .tenant = "rival"},
                  {.name = "ops",
                   .token_sha256 = "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2",
                   .tenant = "ops",
                   .admin = true}};
  return options;
}

// What answers without a token, by intent: docs/security.md.
bool IsOpen(const std::string& path) {
  return path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.") ||
         path == "/inference.GRPCInferenceService/ServerLive" || path == "/inference.GRPCInferenceService/ServerReady";
}

bool IsForAdmins(const std::string& path) {
  if (path.starts_with("/sluice.v1.FlagService/")) return path != "/sluice.v1.FlagService/Evaluate";
  return path.starts_with("/sluice.v1.AdminService/") || path.starts_with("/sluice.v1.QosService/") ||
         path.starts_with("/sluice.v1.RolloutService/") ||
         path == "/inference.GRPCInferenceService/RepositoryModelLoad" ||
         path == "/inference.GRPCInferenceService/RepositoryModelUnload";
}

class KeysTest : public ::testing::Test {
 protected:
  explicit KeysTest(bool metrics = false) : server_(TwoModelsAndThreeKeys(metrics)) {}

  using Oip = inference::GRPCInferenceService;

  // One call of an OIP method; `method` is a member of the stub.
  template <typename Method, typename Request, typename Response>
  grpc::Status Ask(Method method, const Headers& headers, const Request& request, Response& response) {
    grpc::ClientContext context;
    for (const auto& [name, value] : headers) context.AddMetadata(name, value);
    const grpc::Status status = (oip_.get()->*method)(&context, request, &response);
    trailers_.clear();
    for (const auto& [name, value] : context.GetServerTrailingMetadata()) {
      trailers_[{name.data(), name.size()}] = std::string(value.data(), value.size());
    }
    return status;
  }

  grpc::Status Infer(const Headers& headers, const inference::ModelInferRequest& request) {
    response_.Clear();
    return Ask(&Oip::Stub::ModelInfer, headers, request, response_);
  }

  static std::vector<inference::ModelStreamInferResponse> Stream(
      Oip::Stub& stub, const Headers& headers, const std::vector<inference::ModelInferRequest>& requests) {
    grpc::ClientContext context;
    for (const auto& [name, value] : headers) context.AddMetadata(name, value);
    const auto stream = stub.ModelStreamInfer(&context);
    for (const auto& request : requests) stream->Write(request);
    stream->WritesDone();
    std::vector<inference::ModelStreamInferResponse> last;  // of each request
    for (inference::ModelStreamInferResponse answer; stream->Read(&answer);) {
      if (answer.infer_response().parameters().at("triton_final_response").bool_param()) last.push_back(answer);
    }
    EXPECT_TRUE(stream->Finish().ok());
    return last;
  }

  static inference::ModelInferRequest Request(const std::string& model, const std::string& tenant = "") {
    inference::ModelInferRequest request = TextRequest("a prompt that is long enough for a prefix to be taken over");
    request.set_model_name(model);
    Parameter(request, "max_tokens").set_int64_param(4);
    if (!tenant.empty()) Parameter(request, "tenant").set_string_param(tenant);
    return request;
  }

  static int64_t Cached(const inference::ModelInferResponse& response) {
    return response.parameters().at("cached_tokens").int64_param();
  }

  std::string StateOf(const std::string& model) {
    inference::RepositoryIndexResponse index;
    EXPECT_TRUE(Ask(&Oip::Stub::RepositoryIndex, kOps, inference::RepositoryIndexRequest(), index).ok());
    for (const auto& entry : index.models()) {
      if (entry.name() == model) return entry.state() + " " + entry.reason();
    }
    return "missing";
  }

  TestServer server_;
  std::shared_ptr<grpc::Channel> channel_ = server_.Channel();
  std::unique_ptr<Oip::Stub> oip_ = Oip::NewStub(channel_);
  inference::ModelInferResponse response_;
  std::map<std::string, std::string> trailers_;
};

class MeteredKeysTest : public KeysTest {
 protected:
  MeteredKeysTest() : KeysTest(/*metrics=*/true) {}

  double Admitted(const std::string& qos_class) {
    return Scrape(server_.server().metrics_port(),
                  "sluice_qos_admissions_total{class=\"" + qos_class + "\",outcome=\"admitted\"}");
  }
};

TEST_F(KeysTest, EveryMethodOfEveryServiceAsksForAToken) {
  const std::map<std::string, std::pair<Headers, std::string>> callers = {
      {"no token", {{}, "TOKEN_MISSING"}},
      {"another scheme", {{{"authorization", "Basic c2VjcmV0"}}, "TOKEN_MISSING"}},
      {"a wrong token", {{{"authorization", "Bearer wrong"}}, "TOKEN_UNKNOWN"}},
      {"a right one and a wrong one", {{kOps[0], {"authorization", "Bearer wrong"}}, "TOKEN_UNKNOWN"}},
  };
  int open = 0, closed = 0;
  for (const auto* method : ReflectedMethods(channel_)) {
    const std::string path = PathOf(*method);
    (IsOpen(path) ? open : closed) += 1;
    for (const auto& [caller, expected] : callers) {
      SCOPED_TRACE(path + " with " + caller);
      const auto& [headers, reason] = expected;
      if (IsOpen(path)) {  // some of these never end by themselves
        const RawReply reply = Call(channel_, {.path = path, .headers = headers, .stop_after = 1});
        EXPECT_EQ(reply.answers.size(), 1U) << reply.status.error_message();
        continue;
      }
      // A stream is refused when it opens, not when something is sent.
      const bool streams_in = method->client_streaming();
      for (const bool sends : streams_in ? std::vector<bool>{true, false} : std::vector<bool>{true}) {
        RawCall call{.path = path, .headers = headers, .half_close = sends};
        if (!sends) call.messages.clear();
        const RawReply reply = Call(channel_, call);
        EXPECT_EQ(reply.status.error_code(), StatusCode::UNAUTHENTICATED) << reply.status.error_message();
        EXPECT_EQ(ReasonIn(reply.status), reason);
        EXPECT_THAT(reply.answers, IsEmpty());
      }
    }
  }
  EXPECT_EQ(open, 2 + 1 + 2);  // Health, reflection, ServerLive and ServerReady
  EXPECT_GE(closed, 5 + 5 + 10);
  EXPECT_EQ(server_.server().state(), "ready");
  EXPECT_THAT(StateOf("small"), HasSubstr("READY"));
}

TEST_F(KeysTest, WhatChangesTheServerNeedsAnAdminKey) {
  int for_admins = 0;
  for (const auto* method : ReflectedMethods(channel_)) {
    const std::string path = PathOf(*method);
    if (IsOpen(path)) continue;
    SCOPED_TRACE(path);
    const RawReply app = Call(channel_, {.path = path, .headers = kApp, .stop_after = 1});  // some never end
    if (IsForAdmins(path)) {
      ++for_admins;
      EXPECT_EQ(app.status.error_code(), StatusCode::PERMISSION_DENIED) << app.status.error_message();
      EXPECT_EQ(ReasonIn(app.status), "ADMIN_REQUIRED");
      EXPECT_THAT(app.answers, IsEmpty());
    } else {
      EXPECT_NE(ReasonIn(app.status), "ADMIN_REQUIRED");
      EXPECT_NE(app.status.error_code(), StatusCode::UNAUTHENTICATED);
    }
  }
  EXPECT_GE(for_admins, 5 + 5 + 2);
  EXPECT_EQ(server_.server().state(), "ready");

  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("small");
  inference::RepositoryModelUnloadResponse done;
  EXPECT_EQ(Ask(&Oip::Stub::RepositoryModelUnload, kApp, unload, done).error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(StateOf("small"), HasSubstr("READY"));
  EXPECT_TRUE(Ask(&Oip::Stub::RepositoryModelUnload, kOps, unload, done).ok());
  EXPECT_THAT(StateOf("small"), HasSubstr("UNAVAILABLE"));
}

TEST_F(KeysTest, OipModelInferOnlyWithTheKeysModels) {
  EXPECT_TRUE(Infer(kApp, Request("small")).ok());
  for (const char* model : {"large", ""}) {  // "": the default, which is large
    const grpc::Status status = Infer(kApp, Request(model));
    EXPECT_EQ(status.error_code(), StatusCode::PERMISSION_DENIED) << "'" << model << "'";
    EXPECT_EQ(ReasonIn(status), "MODEL_NOT_ALLOWED");
    EXPECT_THAT(status.error_message(), HasSubstr("it may use: small"));
  }
  EXPECT_EQ(StateOf("large"), "UNAVAILABLE unloaded") << "nothing was loaded for somebody who may not use it";
  EXPECT_TRUE(Infer(kRival, Request("large")).ok()) << "a key without a list may use all";
}

TEST_F(KeysTest, OipStreamsOnlyWithTheKeysModels) {
  const auto answers = Stream(*oip_, kApp, {Request("large"), Request(""), Request("small")});
  ASSERT_EQ(answers.size(), 3U);
  int refused = 0;
  for (const auto& answer : answers) {
    const auto& infer = answer.infer_response();
    if (infer.model_name() == "small") {
      EXPECT_EQ(answer.error_message(), "");
      EXPECT_EQ(infer.parameters().at("output_tokens").int64_param(), 4);
    } else {
      ++refused;
      EXPECT_EQ(infer.parameters().at("sluice_reason").string_param(), "MODEL_NOT_ALLOWED");
      EXPECT_EQ(infer.parameters().at("sluice_code").string_param(), "PERMISSION_DENIED");
    }
  }
  EXPECT_EQ(refused, 2);
  EXPECT_EQ(StateOf("large"), "UNAVAILABLE unloaded");
}

TEST_F(KeysTest, OipShowsAKeyOnlyItsModels) {
  inference::RepositoryIndexResponse index;
  ASSERT_TRUE(Ask(&Oip::Stub::RepositoryIndex, kApp, inference::RepositoryIndexRequest(), index).ok());
  ASSERT_EQ(index.models_size(), 1);
  EXPECT_EQ(index.models(0).name(), "small");
  inference::ModelStatisticsResponse statistics;
  ASSERT_TRUE(Ask(&Oip::Stub::ModelStatistics, kApp, inference::ModelStatisticsRequest(), statistics).ok());
  ASSERT_EQ(statistics.model_stats_size(), 1);
  EXPECT_EQ(statistics.model_stats(0).name(), "small");

  const auto expect = [this](const std::string& model, StatusCode code) {
    SCOPED_TRACE(model);
    inference::ModelMetadataRequest metadata;
    metadata.set_name(model);
    inference::ModelMetadataResponse described;
    EXPECT_EQ(Ask(&Oip::Stub::ModelMetadata, kApp, metadata, described).error_code(), code);
    EXPECT_EQ(described.inputs_size() > 0, code == StatusCode::OK);
    inference::ModelConfigRequest config;
    config.set_name(model);
    inference::ModelConfigResponse configured;
    EXPECT_EQ(Ask(&Oip::Stub::ModelConfig, kApp, config, configured).error_code(), code);
    inference::ModelStatisticsRequest one;
    one.set_name(model);
    inference::ModelStatisticsResponse counted;
    EXPECT_EQ(Ask(&Oip::Stub::ModelStatistics, kApp, one, counted).error_code(), code);
    inference::ModelReadyRequest asked;
    asked.set_name(model);
    inference::ModelReadyResponse ready;
    EXPECT_TRUE(Ask(&Oip::Stub::ModelReady, kApp, asked, ready).ok());
    EXPECT_EQ(ready.ready(), code == StatusCode::OK);
  };
  expect("small", StatusCode::OK);
  ASSERT_TRUE(Infer(kOps, Request("large")).ok());
  EXPECT_THAT(StateOf("large"), HasSubstr("READY"));
  expect("large", StatusCode::PERMISSION_DENIED);
}

TEST_F(MeteredKeysTest, OipNeverServesAboveTheKeysClass) {
  inference::ModelInferRequest urgent = Request("small");
  Parameter(urgent, "priority").set_int64_param(1);  // system
  ASSERT_TRUE(Infer(kApp, urgent).ok());
  EXPECT_THAT(trailers_["sluice-qos"], HasSubstr("class=batch"));
  Headers by_header = kApp;
  by_header.emplace_back("x-sluice-class", "system");
  ASSERT_TRUE(Infer(by_header, Request("small")).ok());
  EXPECT_THAT(trailers_["sluice-qos"], HasSubstr("class=batch"));
  EXPECT_EQ(Stream(*oip_, kApp, {urgent, urgent}).size(), 2U);
  EXPECT_EQ(Admitted("batch"), 4);
  EXPECT_EQ(Admitted("system"), 0);
  ASSERT_TRUE(Infer(kRival, urgent).ok());
  EXPECT_THAT(trailers_["sluice-qos"], HasSubstr("class=interactive")) << "the highest of a key that names none";
}

// Who shares a prefix shows which tenant a request ran as.
TEST_F(KeysTest, OipRunsAsTheTenantOfTheKey) {
  ASSERT_TRUE(Infer(kApp, Request("small", "rival")).ok());
  EXPECT_EQ(Cached(response_), 0);
  ASSERT_TRUE(Infer(kRival, Request("small", "acme")).ok());
  EXPECT_EQ(Cached(response_), 0) << "the tenants named in the requests do not count";
  ASSERT_TRUE(Infer(kApp, Request("small", "somebody")).ok());
  EXPECT_GT(Cached(response_), 16) << "the same key is the same tenant, whatever it says";

  const auto rivals = Stream(*oip_, kRival, {Request("small", "acme")});
  ASSERT_EQ(rivals.size(), 1U);
  EXPECT_GT(Cached(rivals[0].infer_response()), 16) << "its own prefix, in a stream as well";
  const auto ops = Stream(*oip_, kOps, {Request("small", "acme")});
  ASSERT_EQ(ops.size(), 1U);
  EXPECT_EQ(Cached(ops[0].infer_response()), 0);
  Headers by_header = kOps;
  by_header.emplace_back("x-sluice-tenant", "acme");
  ASSERT_TRUE(Infer(by_header, Request("large")).ok());
  ASSERT_TRUE(Infer(kRival, Request("large")).ok());
  EXPECT_EQ(Cached(response_), 0);
}

}  // namespace
}  // namespace sluice::test
