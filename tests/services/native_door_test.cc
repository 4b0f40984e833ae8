// The native and the admin service over real connections, with real models (synthetic) and keys behind them. Generation
// itself: tests/integration.
#include <grpcpp/create_channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/synthetic_backend.h"
#include "engine/scheduler/scheduler_probe.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "services/grpc/doors.h"
#include "sluice/v1/admin.grpc.pb.h"
#include "sluice/v1/inference.grpc.pb.h"
#include "tests/services/qos_parts.h"
#include "tests/support/manual_clock.h"

namespace sluice::services {
namespace {

using grpc::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string Reason(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  details.ParseFromString(status.error_details());
  for (const auto& any : details.details()) {
    if (any.UnpackTo(&info)) return info.reason();
  }
  return "";
}

std::shared_ptr<const flags::FlagSet> Flags() {
  flags::FlagSetSpec spec;
  spec.flags.push_back({.key = std::string(flags::kPhase5), .enabled = true, .rollout_bps = 2550});
  return *flags::FlagSet::Create(std::move(spec), /*epoch=*/7);
}

// Models: "default" and "large", loaded when first used; "broken" never loads. Keys: "secret" may use "large" only,
// "root" is an admin.
class NativeDoorTest : public testing::Test {
 protected:
  NativeDoorTest() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(inference_service_.get());
    builder.RegisterService(admin_service_.get());
    server_ = builder.BuildAndStart();
    const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
    inference_ = v1::InferenceService::NewStub(channel);
    admin_ = v1::AdminService::NewStub(channel);
  }
  ~NativeDoorTest() override { server_->Shutdown(); }

  // One unary call with `token`.
  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const std::string& token, const Request& request, Response* response) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + token);
    if constexpr (std::is_same_v<Stub, v1::AdminService::Stub>) {
      return (admin_.get()->*method)(&context, request, response);
    } else {
      return (inference_.get()->*method)(&context, request, response);
    }
  }

  grpc::Status Tokenize(const std::string& token, const std::string& model, v1::TokenizeResponse* response) {
    v1::TokenizeRequest request;
    request.set_model(model);
    request.set_text("h\xC3\xA9llo");
    request.set_return_pieces(true);
    return Call(&v1::InferenceService::Stub::Tokenize, token, request, response);
  }

  std::string StateOf(const std::string& name) {
    for (const engine::ModelInfo& info : models_.List()) {
      if (info.spec.name == name) return std::string(engine::ModelStateName(info.state));
    }
    return "unknown";
  }

  static absl::StatusOr<std::unique_ptr<engine::Backend>> MakeBackend(const engine::ModelSpec& spec) {
    if (spec.name == "broken") return absl::InvalidArgumentError("truncated file");
    return std::make_unique<engine::SyntheticBackend>(engine::SyntheticOptions{.geometry = spec.geometry}, nullptr);
  }

  static engine::ModelSpec Spec(const std::string& name) {
    return {.name = name, .path = "synthetic:", .geometry = {.slots = 2, .slot_context = 64}, .preload = false};
  }

  test::ManualClock clock_;
  MetricsRegistry metrics_;
  engine::EngineMetrics engine_metrics_{metrics_};
  RequestProbe probe_{metrics_, clock_};
  flags::FlagGate gate_{Flags(), metrics_};
  test::QosParts qos_{clock_, metrics_};
  engine::ModelPool models_{
      {.models = {Spec("default"), Spec("large"), Spec("broken")}, .memory_budget_bytes = 1 << 30},
      MakeBackend,
      [this](const engine::ModelSpec& spec, std::unique_ptr<engine::Backend> backend) {
        return std::make_unique<engine::Scheduler>(
            std::move(backend), engine::SchedulerOptions{.model_name = spec.name}, clock_, engine_metrics_, nullptr);
      },
      [](const std::string&) { return absl::OkStatus(); },
      clock_};
  test::QosControlParts qos_control_{qos_, models_, clock_, metrics_};
  RolloutArms arms_{nullptr};
  RequestFlow flow_{{gate_, qos_.engine, qos_.breakers, models_, arms_, nullptr, probe_, clock_}, {}};
  flags::FlagSources sources_{gate_, {}, [](const flags::FlagUpdate&) {}};
  FlagControl control_{sources_, gate_, nullptr, clock_};
  RolloutControl rollout_control_{{.flags = sources_,
                                   .arms = arms_,
                                   .breakers = qos_.breakers,
                                   .webhooks = qos_control_.webhooks,
                                   .metrics = metrics_,
                                   .clock = clock_,
                                   .store = nullptr,
                                   .replica = "test",
                                   .journal = nullptr,
                                   .rss_bytes = nullptr}};
  std::atomic<int64_t> drained_with_ms_{-1};
  // SHA-256 of "secret" and "root".
  CallGuard guard_{{{.name = "app",
                     .token_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                     .tenant = "acme",
                     .models = {"large"}},
                    {.name = "ops",
                     .token_sha256 = "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2",
                     .tenant = "ops",
                     .admin = true}},
                   clock_};
  DoorContext doors_{
      .flow = flow_,
      .models = models_,
      .gate = gate_,
      .flag_sources = sources_,
      .flag_control = control_,
      .admission = qos_.admission,
      .policies = qos_.policies,
      .quotas = qos_.quotas,
      .decisions = qos_.decisions,
      .qos_control = qos_control_.control,
      .breakers = qos_.breakers,
      .rollout_control = rollout_control_,
      .clock = clock_,
      .request_drain = [this](Duration grace) { drained_with_ms_ = static_cast<int64_t>(ToMillis(grace)); },
      .state = [] { return std::string("ready"); }};
  std::unique_ptr<grpc::Service> inference_service_ = MakeInferenceService(doors_, guard_);
  std::unique_ptr<grpc::Service> admin_service_ = MakeAdminService(doors_, guard_);
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

TEST_F(NativeDoorTest, TokenizeLoadsTheModelAndRoundTrips) {
  EXPECT_EQ(StateOf("large"), "unloaded");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(Tokenize("secret", "large", &tokens).ok());
  EXPECT_EQ(StateOf("large"), "ready");
  EXPECT_EQ(tokens.slot_context(), 64);
  ASSERT_EQ(tokens.pieces_size(), tokens.token_ids_size());
  std::string joined;
  for (const std::string& piece : tokens.pieces()) joined += piece;
  EXPECT_EQ(joined, "h\xC3\xA9llo");

  v1::DetokenizeRequest request;
  request.set_model("large");
  *request.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(Call(&v1::InferenceService::Stub::Detokenize, "secret", request, &text).ok());
  EXPECT_EQ(text.text(), "h\xC3\xA9llo");
  // Synthetic tokens are bytes: without the second byte of the accent half a character is left.
  request.mutable_token_ids()->erase(request.token_ids().begin() + 2);
  ASSERT_TRUE(Call(&v1::InferenceService::Stub::Detokenize, "secret", request, &text).ok());
  EXPECT_EQ(text.text(), "h\xEF\xBF\xBDllo");
  request.add_token_ids(512);
  const grpc::Status status = Call(&v1::InferenceService::Stub::Detokenize, "secret", request, &text);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids[5]: got 512; allowed 0 to 511"));
}

TEST_F(NativeDoorTest, AKeySeesAndUsesItsModelsOnly) {
  v1::TokenizeResponse tokens;
  for (const std::string model : {"default", "", "nowhere"}) {  // "": the default model
    const grpc::Status status = Tokenize("secret", model, &tokens);
    EXPECT_EQ(status.error_code(), StatusCode::PERMISSION_DENIED) << model;
    EXPECT_EQ(Reason(status), "MODEL_NOT_ALLOWED");
    EXPECT_THAT(status.error_message(), HasSubstr("large"));
  }
  EXPECT_EQ(StateOf("default"), "unloaded");  // a refusal loads nothing

  v1::ListModelsResponse list;
  ASSERT_TRUE(Call(&v1::InferenceService::Stub::ListModels, "secret", v1::ListModelsRequest(), &list).ok());
  ASSERT_EQ(list.models_size(), 1);
  EXPECT_EQ(list.models(0).name(), "large");
  ASSERT_TRUE(Call(&v1::InferenceService::Stub::ListModels, "root", v1::ListModelsRequest(), &list).ok());
  ASSERT_EQ(list.models_size(), 3);
  EXPECT_EQ(list.models(0).name(), "default");
  EXPECT_TRUE(list.models(0).is_default());
}

TEST_F(NativeDoorTest, FailuresOfAModelSayWhy) {
  v1::TokenizeResponse tokens;
  EXPECT_THAT(Tokenize("root", "broken", &tokens).error_message(), HasSubstr("truncated file"));
  const grpc::Status again = Tokenize("root", "broken", &tokens);
  EXPECT_EQ(again.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(again), "MODEL_FAILED");
  const grpc::Status unknown = Tokenize("root", "nowhere", &tokens);
  EXPECT_EQ(unknown.error_code(), StatusCode::NOT_FOUND);
  EXPECT_THAT(unknown.error_message(), HasSubstr("default, large, broken"));
}

TEST_F(NativeDoorTest, EmbedAnswersInOrderWithTrailers) {
  v1::EmbedRequest request;
  request.set_model("large");
  for (const char* text : {"one", "two", "one"}) request.add_input(text);
  v1::EmbedResponse response;
  ASSERT_TRUE(Call(&v1::InferenceService::Stub::Embed, "secret", request, &response).ok());
  ASSERT_EQ(response.embeddings_size(), 3);
  EXPECT_EQ(response.model(), "large");
  EXPECT_GT(response.prompt_tokens(), 0);
  const auto values = [&](int i) {
    return std::vector<float>(response.embeddings(i).values().begin(), response.embeddings(i).values().end());
  };
  EXPECT_EQ(values(0), values(2));
  EXPECT_NE(values(0), values(1));
  request.set_model("default");
  EXPECT_EQ(Call(&v1::InferenceService::Stub::Embed, "secret", request, &response).error_code(),
            StatusCode::PERMISSION_DENIED);
}

TEST_F(NativeDoorTest, GenerateEndsWithFinishAndWithoutItOnErrors) {
  v1::GenerateRequest request;
  request.set_model("large");
  request.set_prompt("hello");
  request.set_max_tokens(8);
  request.set_ignore_eos(true);
  request.set_return_token_ids(true);
  request.mutable_sampling()->set_logprobs(2);
  const auto generate = [&](std::vector<v1::GenerateResponse>* responses) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer secret");
    const auto reader = inference_->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) responses->push_back(response);
    return reader->Finish();
  };
  std::vector<v1::GenerateResponse> responses;
  ASSERT_TRUE(generate(&responses).ok());
  ASSERT_FALSE(responses.empty());
  int tokens = 0, logprobs = 0;
  for (size_t i = 0; i < responses.size(); ++i) {
    tokens += responses[i].token_ids_size();
    logprobs += responses[i].logprobs_size();
    EXPECT_EQ(responses[i].has_finish(), i + 1 == responses.size());
  }
  EXPECT_EQ(tokens, 8);
  EXPECT_EQ(logprobs, 8);
  EXPECT_EQ(responses.front().logprobs(0).top_size(), 2);
  EXPECT_EQ(responses.back().finish().reason(), "length");
  EXPECT_EQ(responses.back().finish().usage().output_tokens(), 8);

  responses.clear();
  request.set_model("default");
  EXPECT_EQ(generate(&responses).error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(responses.empty());
}

TEST_F(NativeDoorTest, OperationsNeedAnAdmin) {
  v1::LoadModelResponse load;
  v1::UnloadModelResponse unload;
  v1::PinModelResponse pin;
  v1::GetStatusResponse status;
  v1::DrainResponse drain;
  using Stub = v1::AdminService::Stub;
  v1::LoadModelRequest load_large;
  load_large.set_name("large");
  const std::vector<std::pair<std::string, StatusCode>> callers = {{"secret", StatusCode::PERMISSION_DENIED},
                                                                   {"guess", StatusCode::UNAUTHENTICATED}};
  for (const auto& [token, code] : callers) {
    EXPECT_EQ(Call(&Stub::LoadModel, token, load_large, &load).error_code(), code);
    EXPECT_EQ(Call(&Stub::UnloadModel, token, v1::UnloadModelRequest(), &unload).error_code(), code);
    EXPECT_EQ(Call(&Stub::PinModel, token, v1::PinModelRequest(), &pin).error_code(), code);
    EXPECT_EQ(Call(&Stub::GetStatus, token, v1::GetStatusRequest(), &status).error_code(), code);
    EXPECT_EQ(Call(&Stub::Drain, token, v1::DrainRequest(), &drain).error_code(), code);
  }
  EXPECT_EQ(StateOf("large"), "unloaded");
  EXPECT_EQ(drained_with_ms_, -1);
}

TEST_F(NativeDoorTest, ModelsArePinnedAndUnloaded) {
  using Stub = v1::AdminService::Stub;
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(Tokenize("root", "large", &tokens).ok());
  v1::PinModelRequest pin;
  pin.set_name("large");
  pin.set_pinned(true);
  v1::PinModelResponse pinned;
  ASSERT_TRUE(Call(&Stub::PinModel, "root", pin, &pinned).ok());
  EXPECT_TRUE(pinned.model().pinned());
  v1::UnloadModelRequest unload;
  unload.set_name("large");
  v1::UnloadModelResponse unloaded;
  const grpc::Status refused = Call(&Stub::UnloadModel, "root", unload, &unloaded);
  EXPECT_EQ(refused.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(refused), "MODEL_PINNED");
  pin.set_pinned(false);
  ASSERT_TRUE(Call(&Stub::PinModel, "root", pin, &pinned).ok());
  ASSERT_TRUE(Call(&Stub::UnloadModel, "root", unload, &unloaded).ok());
  EXPECT_EQ(StateOf("large"), "unloaded");

  v1::LoadModelRequest load;
  v1::LoadModelResponse loaded;
  load.set_name(std::string(129, 'n'));
  load.set_path(std::string("a\0b", 3));
  const grpc::Status invalid = Call(&Stub::LoadModel, "root", load, &loaded);
  EXPECT_EQ(invalid.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(invalid.error_message(), AllOf(HasSubstr("name: got 129 bytes"), HasSubstr("path: ")));
}

TEST_F(NativeDoorTest, OperationsLeaveAnAuditLine) {
  using Stub = v1::AdminService::Stub;
  testing::internal::CaptureStderr();
  v1::UnloadModelRequest unload;
  unload.set_name("nowhere");
  v1::UnloadModelResponse response;
  Call(&Stub::UnloadModel, "root", unload, &response);
  Call(&Stub::UnloadModel, "secret", unload, &response);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("key=ops"));
  EXPECT_THAT(log, HasSubstr("action=UnloadModel target=nowhere result=MODEL_NOT_FOUND"));
  EXPECT_THAT(log, HasSubstr("key=app"));
  EXPECT_THAT(log, HasSubstr("result=ADMIN_REQUIRED"));
  EXPECT_THAT(log, AllOf(Not(HasSubstr("secret")), Not(HasSubstr("root"))));
}

TEST_F(NativeDoorTest, StatusShowsEnginesBreakersAndFlags) {
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(Tokenize("root", "large", &tokens).ok());
  qos_.breakers.Get("large", "ttft").ForceState(qos::BreakerState::kForcedOpen);
  clock_.Advance(std::chrono::seconds(5));
  v1::GetStatusResponse status;
  ASSERT_TRUE(Call(&v1::AdminService::Stub::GetStatus, "root", v1::GetStatusRequest(), &status).ok());
  EXPECT_EQ(status.state(), "ready");
  EXPECT_NE(status.version(), "");
  EXPECT_DOUBLE_EQ(status.uptime_s(), 5);
  EXPECT_GT(status.rss_bytes(), 1U << 20);
  ASSERT_EQ(status.engines_size(), 1);  // of loaded models only
  EXPECT_EQ(status.engines(0).model(), "large");
  EXPECT_EQ(status.engines(0).slots(), 2);
  ASSERT_EQ(status.breakers_size(), 1);
  EXPECT_EQ(status.breakers(0).pipeline(), "ttft");
  EXPECT_EQ(status.breakers(0).state(), "forced_open");
  EXPECT_EQ(status.flag_epoch(), 7U);
  ASSERT_EQ(status.flags_size(), 1);
  EXPECT_EQ(status.flags(0).key(), "phase5");
  EXPECT_DOUBLE_EQ(status.flags(0).rollout_percentage(), 25.5);
  EXPECT_EQ(status.flags(0).layer(), "file");
  EXPECT_THAT(status.flags(0).effective(), HasSubstr("25.5"));
}

TEST_F(NativeDoorTest, ConfiguredModelsAreLoadedByName) {
  v1::LoadModelRequest load;
  load.set_name("large");
  v1::LoadModelResponse loaded;
  ASSERT_TRUE(Call(&v1::AdminService::Stub::LoadModel, "root", load, &loaded).ok());
  EXPECT_EQ(loaded.model().name(), "large");
  EXPECT_EQ(loaded.model().state(), "ready");
  EXPECT_EQ(loaded.model().backend(), "synthetic");
}

TEST_F(NativeDoorTest, DrainChecksItsGrace) {
  v1::DrainRequest request;
  v1::DrainResponse response;
  request.set_grace_ms(-1);
  EXPECT_EQ(Call(&v1::AdminService::Stub::Drain, "root", request, &response).error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(drained_with_ms_, -1);
  request.set_grace_ms(1500);
  EXPECT_TRUE(Call(&v1::AdminService::Stub::Drain, "root", request, &response).ok());
  EXPECT_EQ(drained_with_ms_, 1500);
}

}  // namespace
}  // namespace sluice::services
