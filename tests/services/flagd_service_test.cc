// flagd.evaluation.v1 and v2 over real connections.
#include "services/grpc/flagd_service.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/impl/rpc_method.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/sync_stream.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/scheduler/scheduler_probe.h"
#include "flagd/evaluation/v1/evaluation.pb.h"
#include "flagd/evaluation/v2/evaluation.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/grpc/struct_codec.h"
#include "tests/services/flag_documents.h"
#include "tests/services/qos_parts.h"
#include "tests/support/manual_clock.h"

namespace sluice::services {
namespace {

namespace v1 = ::flagd::evaluation::v1;
namespace v2 = ::flagd::evaluation::v2;
using grpc::StatusCode;
using grpc::internal::RpcMethod;
using nlohmann::json;
using test::FlagSpec;
using test::MakeFlags;
using testing::ElementsAre;

constexpr int kStreams = 2;

// There are no generated stubs for a service called Service.
template <typename Response, typename Request>
grpc::Status CallUnary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const Request& request,
                       Response* response, const std::string& token = "",
                       const std::map<std::string, std::string>& metadata = {}) {
  grpc::ClientContext context;
  for (const auto& [name, value] : metadata) context.AddMetadata(name, value);
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  using google::protobuf::MessageLite;
  return grpc::internal::BlockingUnaryCall<Request, Response, MessageLite, MessageLite>(
      channel.get(), RpcMethod(method.c_str(), RpcMethod::NORMAL_RPC, channel), &context, request, response);
}

// An EventStream of version 1 being read.
class Listener {
 public:
  explicit Listener(const std::shared_ptr<grpc::Channel>& channel)
      : reader_(grpc::internal::ClientReaderFactory<v1::EventStreamResponse>::Create(
            channel.get(), RpcMethod("/flagd.evaluation.v1.Service/EventStream", RpcMethod::SERVER_STREAMING, channel),
            &context_, v1::EventStreamRequest())) {}
  ~Listener() {
    context_.TryCancel();
    Finish();
  }

  // The next event's type; "" at the end.
  std::string Next() { return reader_->Read(&event_) ? event_.type() : ""; }
  json data() const { return StructToJson(event_.data()); }
  grpc::Status Finish() {
    if (!finished_) status_ = reader_->Finish();
    finished_ = true;
    return status_;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::EventStreamResponse>> reader_;
  v1::EventStreamResponse event_;
  bool finished_ = false;
  grpc::Status status_;
};

class FlagdServiceTest : public testing::Test {
 protected:
  explicit FlagdServiceTest(Duration keep_alive = Duration::zero(), std::vector<config::ApiKey> keys = {})
      : guard_(std::move(keys), clock_), events_(gate_, kStreams, keep_alive) {
    services_ = MakeFlagdServices(doors_, guard_, events_);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    for (const auto& service : services_) builder.RegisterService(service.get());
    server_ = builder.BuildAndStart();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  }
  ~FlagdServiceTest() override { server_->Shutdown(); }

  template <typename Response, typename Request>
  grpc::Status Resolve(Request request, const std::string& type, const std::string& key, Response* response,
                       const json& context = json::object()) {
    request.set_flag_key(key);
    JsonToStruct(context, *request.mutable_context());
    const bool second = std::is_same_v<Request, v2::ResolveBooleanRequest>;
    return CallUnary(channel_, std::string("/flagd.evaluation.v") + (second ? "2" : "1") + ".Service/Resolve" + type,
                     request, response);
  }

  test::ManualClock clock_;
  MetricsRegistry metrics_;
  engine::EngineMetrics engine_metrics_{metrics_};
  RequestProbe probe_{metrics_, clock_};
  flags::FlagGate gate_{MakeFlags(), metrics_};
  test::QosParts qos_{clock_, metrics_};
  engine::ModelPool models_{{},
                            [](const engine::ModelSpec&) -> absl::StatusOr<std::unique_ptr<engine::Backend>> {
                              return absl::UnimplementedError("no models here");
                            },
                            [this](const engine::ModelSpec& spec, std::unique_ptr<engine::Backend> backend) {
                              return std::make_unique<engine::Scheduler>(
                                  std::move(backend), engine::SchedulerOptions{.model_name = spec.name}, clock_,
                                  engine_metrics_, nullptr);
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
  CallGuard guard_;
  DoorContext doors_{.flow = flow_,
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
                     .request_drain = [](Duration) {},
                     .state = [] { return std::string("ready"); }};
  FlagEvents events_;
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(FlagdServiceTest, EveryType) {
  v1::ResolveBooleanResponse boolean;
  ASSERT_TRUE(Resolve(v1::ResolveBooleanRequest(), "Boolean", "bool", &boolean).ok());
  EXPECT_TRUE(boolean.value());
  EXPECT_EQ(boolean.variant(), "on");
  EXPECT_EQ(boolean.reason(), "STATIC");
  EXPECT_EQ(StructToJson(boolean.metadata()), json({{"flagSetId", "tests"}}));
  v1::ResolveStringResponse text;
  ASSERT_TRUE(Resolve(v1::ResolveStringRequest(), "String", "string", &text, {{"leaving", true}}).ok());
  EXPECT_EQ(text.value(), "");
  EXPECT_EQ(text.variant(), "bye");
  EXPECT_EQ(text.reason(), "TARGETING_MATCH");
  v1::ResolveIntResponse integer;
  ASSERT_TRUE(Resolve(v1::ResolveIntRequest(), "Int", "int", &integer).ok());
  EXPECT_EQ(integer.value(), 10);
  ASSERT_TRUE(Resolve(v1::ResolveIntRequest(), "Int", "float", &integer).ok());
  EXPECT_EQ(integer.value(), 0) << "a fraction is cut off";
  v1::ResolveFloatResponse number;
  ASSERT_TRUE(Resolve(v1::ResolveFloatRequest(), "Float", "float", &number).ok());
  EXPECT_EQ(number.value(), 0.5);
  v1::ResolveObjectResponse object;
  ASSERT_TRUE(Resolve(v1::ResolveObjectRequest(), "Object", "object", &object).ok());
  EXPECT_EQ(StructToJson(object.value()), json::parse(R"({"list": [1, "b", null], "deep": {"x": true}})"));
}

TEST_F(FlagdServiceTest, StatusesAreFlagds) {
  v1::ResolveStringResponse text;
  const auto code = [&](const std::string& key) {
    return Resolve(v1::ResolveStringRequest(), "String", key, &text).error_code();
  };
  EXPECT_EQ(code("nowhere"), StatusCode::NOT_FOUND);
  EXPECT_EQ(code("bool"), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code("broken"), StatusCode::DATA_LOSS);
  EXPECT_EQ(code("wrong"), StatusCode::UNKNOWN);
  EXPECT_EQ(code(""), StatusCode::NOT_FOUND);
}

TEST_F(FlagdServiceTest, CountsFlagsThatThereAreNot) {
  v1::ResolveBooleanResponse boolean;
  for (const char* key : {"nowhere", "gone", "bool", "no-default"}) {
    (void)Resolve(v1::ResolveBooleanRequest(), "Boolean", key, &boolean);
  }
  double counted = 0;
  for (const MetricFamily& family : metrics_.Collect()) {
    if (family.name != "sluice_flag_not_found_total") continue;
    ASSERT_EQ(family.samples.size(), 1U);
    EXPECT_EQ(family.samples[0].label_values, std::vector<std::string>{"flagd"});
    counted = family.samples[0].value;
  }
  EXPECT_EQ(counted, 2) << "a flag without a value is there";
}

TEST_F(FlagdServiceTest, ASelectorIsAcceptedAndChangesNothing) {
  v1::ResolveBooleanRequest request;
  v1::ResolveBooleanResponse response;
  request.set_flag_key("bool");
  for (const char* selector : {"flagSetId=tests", "flagSetId=others", "source=nowhere.json", "?"}) {
    const grpc::Status status = CallUnary(channel_, "/flagd.evaluation.v1.Service/ResolveBoolean", request, &response,
                                          /*token=*/"", {{"flagd-selector", selector}});
    EXPECT_TRUE(status.ok()) << selector;
    EXPECT_TRUE(response.value()) << selector;
  }
}

TEST_F(FlagdServiceTest, StreamsTellOfSchedules) {
  flags::FlagSetSpec spec = FlagSpec();
  for (flags::Flag& flag : spec.flags) {
    if (flag.key == "parent") flag.schedule.start = clock_.WallNow() + std::chrono::seconds(10);
  }
  gate_.Swap(MakeFlags(spec, 2));
  (void)gate_.PassTime(clock_.WallNow());
  Listener listener(channel_);
  EXPECT_EQ(listener.Next(), "provider_ready");
  clock_.Advance(std::chrono::seconds(9));
  EXPECT_TRUE(gate_.PassTime(clock_.WallNow()).empty());
  clock_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(gate_.PassTime(clock_.WallNow()).size(), 1U);
  EXPECT_EQ(listener.Next(), "configuration_change");
  EXPECT_EQ(listener.data(), json::parse(R"({"flags": {"parent": {"type": "update"}, "native": {"type": "update"}}})"))
      << "the child answers differently as well";
}

TEST_F(FlagdServiceTest, WithoutAValueTheVersionsDiffer) {
  v1::ResolveBooleanResponse first;
  EXPECT_EQ(Resolve(v1::ResolveBooleanRequest(), "Boolean", "no-default", &first).error_code(), StatusCode::NOT_FOUND);
  ASSERT_TRUE(Resolve(v1::ResolveBooleanRequest(), "Boolean", "disabled", &first).ok());
  EXPECT_EQ(first.reason(), "DISABLED");
  for (const auto& [key, reason] : {std::pair{"no-default", "DEFAULT"}, {"disabled", "DISABLED"}}) {
    v2::ResolveBooleanResponse second;
    ASSERT_TRUE(Resolve(v2::ResolveBooleanRequest(), "Boolean", key, &second).ok());
    EXPECT_FALSE(second.has_value()) << key;
    EXPECT_FALSE(second.has_variant()) << key;
    EXPECT_EQ(second.reason(), reason);
  }
  v2::ResolveBooleanResponse set;
  ASSERT_TRUE(Resolve(v2::ResolveBooleanRequest(), "Boolean", "bool", &set).ok());
  EXPECT_TRUE(set.has_value() && set.value());
}

TEST_F(FlagdServiceTest, NativeFlagsAnswerToo) {
  v1::ResolveBooleanResponse response;
  for (int i = 0; i < 20; ++i) {
    const std::string key = "user-" + std::to_string(i);
    ASSERT_TRUE(Resolve(v1::ResolveBooleanRequest(), "Boolean", "native", &response, {{"targetingKey", key}}).ok());
    EXPECT_EQ(response.value(), gate_.snapshot()->Evaluate("native", {.targeting_key = key}).in);
  }
}

TEST_F(FlagdServiceTest, ResolveAllLeavesOutWhatFails) {
  v1::ResolveAllRequest request;
  v1::ResolveAllResponse response;
  ASSERT_TRUE(CallUnary(channel_, "/flagd.evaluation.v1.Service/ResolveAll", request, &response).ok());
  EXPECT_EQ(response.flags().size(), 10u);
  EXPECT_FALSE(response.flags().contains("broken"));
  EXPECT_TRUE(response.flags().at("bool").bool_value());
  EXPECT_EQ(response.flags().at("int").double_value(), 10);
  EXPECT_EQ(response.flags().at("string").string_value(), "hello");
  EXPECT_TRUE(response.flags().at("object").has_object_value());
  EXPECT_EQ(response.flags().at("disabled").value_case(), v1::AnyFlag::VALUE_NOT_SET);
}

TEST_F(FlagdServiceTest, StreamsTellOfChangesAndOfTheEnd) {
  Listener listener(channel_);
  EXPECT_EQ(listener.Next(), "provider_ready");
  flags::FlagSetSpec spec = FlagSpec();
  std::erase_if(spec.flags, [](const flags::Flag& f) { return f.key == "int"; });
  spec.flags.push_back({.key = "new"});
  gate_.Swap(MakeFlags(FlagSpec(), 2));  // nothing changes: no event
  gate_.Swap(MakeFlags(spec, 3));
  EXPECT_EQ(listener.Next(), "configuration_change");
  EXPECT_EQ(listener.data(), json::parse(R"({"flags": {"int": {"type": "delete"}, "new": {"type": "write"}}})"));
  EXPECT_EQ(guard_.open_calls(), 0) << "a stream must not hold up a drain";
  events_.Shutdown();
  EXPECT_EQ(listener.Next(), "provider_shutdown");
  EXPECT_EQ(listener.Next(), "");
  EXPECT_TRUE(listener.Finish().ok());
  Listener late(channel_);
  EXPECT_EQ(late.Next(), "");
  EXPECT_EQ(late.Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(FlagdServiceTest, StreamsAreBounded) {
  auto first = std::make_unique<Listener>(channel_);
  Listener second(channel_);
  EXPECT_EQ(first->Next(), "provider_ready");
  EXPECT_EQ(second.Next(), "provider_ready");
  {
    Listener third(channel_);
    EXPECT_EQ(third.Next(), "");
    EXPECT_EQ(third.Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  }
  first.reset();
  // The server learns of the cancellation a little later.
  std::string type;
  for (int i = 0; i < 10'000 && type.empty(); ++i) type = Listener(channel_).Next();
  EXPECT_EQ(type, "provider_ready");
}

class FlagdKeepAliveTest : public FlagdServiceTest {
 protected:
  FlagdKeepAliveTest() : FlagdServiceTest(std::chrono::milliseconds(1)) {}
};

TEST_F(FlagdKeepAliveTest, IdleStreamsAreKeptAlive) {
  Listener listener(channel_);
  EXPECT_EQ(listener.Next(), "provider_ready");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(listener.Next(), "keep_alive");
}

class FlagdKeysTest : public FlagdServiceTest {
 protected:
  // SHA-256 of "secret".
  FlagdKeysTest()
      : FlagdServiceTest(
            Duration::zero(),
            {{.name = "app", .token_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}}) {}
};

TEST_F(FlagdKeysTest, TheGuardIsTheOneOfAllDoors) {
  v1::ResolveBooleanRequest request;
  v1::ResolveBooleanResponse response;
  request.set_flag_key("bool");
  const auto call = [&](const std::string& token) {
    return CallUnary(channel_, "/flagd.evaluation.v1.Service/ResolveBoolean", request, &response, token).error_code();
  };
  EXPECT_EQ(call(""), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(call("other"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(call("secret"), StatusCode::OK);
  Listener listener(channel_);
  EXPECT_EQ(listener.Next(), "");
  EXPECT_EQ(listener.Finish().error_code(), StatusCode::UNAUTHENTICATED);
}

}  // namespace
}  // namespace sluice::services
