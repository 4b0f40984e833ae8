#include "loadtest/kserve_target.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <set>

#include "gmock/gmock.h"
#include "inference/grpc_service.grpc.pb.h"
#include "loadtest/event_loop.h"
#include "tests/loadtest/send_request.h"
#include "tests/support/status_matchers.h"

namespace sluice::loadtest {
namespace {

using absl::StatusCode;
using test::IsOk;
using test::Send;
using test::StatusIs;
using testing::AllOf;
using testing::HasSubstr;

constexpr Duration kLong = std::chrono::seconds(30), kShort = std::chrono::milliseconds(250);

using Stream = grpc::ServerReaderWriter<inference::ModelStreamInferResponse, inference::ModelInferRequest>;

inference::ModelStreamInferResponse Text(const std::string& text, bool raw = true) {
  inference::ModelStreamInferResponse response;
  auto& infer = *response.mutable_infer_response();
  infer.add_outputs()->set_name("text_output");
  if (raw) {
    const auto n = static_cast<char>(text.size());
    infer.add_raw_output_contents(std::string{n, 0, 0, 0} + text);
  } else {
    infer.mutable_outputs(0)->mutable_contents()->add_bytes_contents(text);
  }
  (*infer.mutable_parameters())["triton_final_response"].set_bool_param(false);
  return response;
}

inference::ModelStreamInferResponse Final() {
  inference::ModelStreamInferResponse response;
  auto& parameters = *response.mutable_infer_response()->mutable_parameters();
  parameters["triton_final_response"].set_bool_param(true);
  return response;
}

inference::ModelStreamInferResponse Error(const std::string& message, const std::string& code) {
  inference::ModelStreamInferResponse response = Final();
  response.set_error_message(message);
  auto& parameters = *response.mutable_infer_response()->mutable_parameters();
  if (!code.empty()) parameters["sluice_code"].set_string_param(code);
  return response;
}

// Scripted by what tests set before they connect.
class FakeService final : public inference::GRPCInferenceService::Service {
 public:
  std::function<grpc::Status(const inference::ModelInferRequest&, grpc::ServerContext&, Stream&)> infer;
  std::atomic<int> not_ready{0};  // so many ServerReady calls say no
  std::map<std::string, std::string> models = {{"small", "READY"}};
  std::string token;
  bool has_index = true;

  std::set<std::string> peers() {
    MutexLock lock(mutex_);
    return peers_;
  }

  grpc::Status ServerReady(grpc::ServerContext*, const inference::ServerReadyRequest*,
                           inference::ServerReadyResponse* response) override {
    response->set_ready(not_ready.fetch_sub(1) <= 0);
    return grpc::Status::OK;
  }
  grpc::Status RepositoryIndex(grpc::ServerContext* context, const inference::RepositoryIndexRequest*,
                               inference::RepositoryIndexResponse* response) override {
    if (!has_index) return {grpc::StatusCode::UNIMPLEMENTED, "no index"};
    if (!token.empty() && Header(*context, "authorization") != "Bearer " + token) {
      return {grpc::StatusCode::UNAUTHENTICATED, "no such key"};
    }
    for (const auto& [name, state] : models) {
      response->add_models()->set_name(name);
      response->mutable_models(response->models_size() - 1)->set_state(state);
    }
    return grpc::Status::OK;
  }
  grpc::Status ModelMetadata(grpc::ServerContext*, const inference::ModelMetadataRequest* request,
                             inference::ModelMetadataResponse*) override {
    return models.count(request->name()) > 0 ? grpc::Status::OK : grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown");
  }
  grpc::Status ModelStreamInfer(grpc::ServerContext* context, Stream* stream) override {
    {
      MutexLock lock(mutex_);
      peers_.insert(context->peer());
    }
    inference::ModelInferRequest request, more;
    if (!stream->Read(&request)) return {grpc::StatusCode::CANCELLED, "no request"};
    if (stream->Read(&more)) return {grpc::StatusCode::INTERNAL, "the client did not half-close"};
    return infer(request, *context, *stream);
  }
  static std::string Header(const grpc::ServerContext& context, const char* name) {
    const auto it = context.client_metadata().find(name);
    return it == context.client_metadata().end() ? "" : std::string(it->second.data(), it->second.size());
  }

 private:
  Mutex mutex_;
  std::set<std::string> peers_ ABSL_GUARDED_BY(mutex_);
};

class KserveTargetTest : public testing::Test {
 protected:
  KserveTargetTest() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    options_ = {.url = "kserve://127.0.0.1:" + std::to_string(port), .model = "small", .connections = 2};
    Connect();
  }
  ~KserveTargetTest() override {
    target_.reset();
    server_->Shutdown(std::chrono::system_clock::now());
  }
  void Connect() { target_ = MakeKserveTarget(options_, loop_, clock_, clock_.Now()); }
  Record Ask(Request request = {.id = "r1", .prompt = "hello", .keep_text = true}) {
    return Send(*target_, std::move(request));
  }
  absl::Status Check(const std::string& model, Duration timeout = kLong) {
    options_.model = model;
    Connect();
    return target_->Check(timeout, stop_);
  }

  std::atomic<bool> stop_{false};
  SystemClock clock_;
  EventLoop loop_{clock_};
  FakeService service_;
  std::unique_ptr<grpc::Server> server_;
  TargetOptions options_;
  std::unique_ptr<Target> target_;
};

TEST_F(KserveTargetTest, AStreamBecomesARecord) {
  service_.infer = [](const auto&, auto&, Stream& stream) {
    stream.Write(Text(""));
    stream.Write(Text("one"));
    stream.Write(Text(" two", /*raw=*/false));
    auto last = Text("");
    auto& parameters = *last.mutable_infer_response()->mutable_parameters();
    parameters["prompt_tokens"].set_int64_param(7);
    parameters["cached_tokens"].set_int64_param(4);
    parameters["output_tokens"].set_int64_param(2);
    parameters["sluice_pipeline"].set_string_param("ttft");
    stream.Write(last);
    stream.Write(Final());
    return grpc::Status::OK;
  };
  const Record record = Ask();
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text, "one two");
  EXPECT_EQ(record.token_ns.size(), 2u);
  EXPECT_EQ(record.prompt_tokens, 7);
  EXPECT_EQ(record.cached_tokens, 4);
  EXPECT_EQ(record.output_tokens, 2);
  EXPECT_EQ(record.pipeline, "ttft");
  test::ExpectOrderedTimes(record);
}

TEST_F(KserveTargetTest, TheRequestIsAsTheProtocolSays) {
  options_.token = "secret";
  Connect();
  inference::ModelInferRequest seen;
  std::string id, token;
  service_.infer = [&](const inference::ModelInferRequest& request, grpc::ServerContext& context, Stream& stream) {
    seen = request;
    id = FakeService::Header(context, "x-request-id");
    token = FakeService::Header(context, "authorization");
    stream.Write(Final());
    return grpc::Status::OK;
  };
  Ask({.id = "id-7",
       .prompt = "hello",
       .max_tokens = 5,
       .temperature = 0.5,
       .seed = 18446744073709551615u,
       .tenant = "acme",
       .user = "ann",
       .conversation = "c9",
       .priority_class = "batch",
       .timeout = std::chrono::seconds(20)});
  EXPECT_EQ(id, "id-7");
  EXPECT_EQ(token, "Bearer secret");
  EXPECT_EQ(seen.model_name(), "small");
  EXPECT_EQ(seen.id(), "id-7");
  ASSERT_EQ(seen.inputs_size(), 1);
  EXPECT_EQ(seen.inputs(0).name(), "text_input");
  EXPECT_EQ(seen.inputs(0).datatype(), "BYTES");
  EXPECT_EQ(seen.inputs(0).contents().bytes_contents(0), "hello");
  const auto& parameters = seen.parameters();
  EXPECT_EQ(parameters.at("max_tokens").int64_param(), 5);
  EXPECT_EQ(parameters.at("temperature").double_param(), 0.5);
  EXPECT_EQ(parameters.at("seed").uint64_param(), 18446744073709551615u);
  EXPECT_TRUE(parameters.at("ignore_eos").bool_param());
  EXPECT_TRUE(parameters.at("exclude_input_in_output").bool_param());
  EXPECT_EQ(parameters.at("timeout").int64_param(), 20'000'000);
  EXPECT_EQ(parameters.at("priority").uint64_param(), 4u);
  EXPECT_EQ(parameters.at("tenant").string_param(), "acme");
  EXPECT_EQ(parameters.at("user").string_param(), "ann");
  EXPECT_EQ(parameters.at("sequence_id").string_param(), "c9");
}

TEST_F(KserveTargetTest, WhatTheProtocolCannotSayIsNotSent) {
  service_.infer = [](const auto&, auto&, Stream&) { return grpc::Status::OK; };
  const Record chat = Ask({.chat = {{"user", "hi"}}});
  EXPECT_EQ(chat.code, StatusCode::kUnimplemented);
  EXPECT_THAT(chat.error, HasSubstr("chat"));
  test::ExpectOrderedTimes(chat);
  EXPECT_EQ(Ask({.token_ids = {1}}).code, StatusCode::kUnimplemented);
  EXPECT_TRUE(service_.peers().empty());
}

TEST_F(KserveTargetTest, ErrorsKeepTheirCode) {
  service_.infer = [](const inference::ModelInferRequest& request, auto&, Stream& stream) {
    if (request.id() == "status") return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    if (request.id() == "short") {
      stream.Write(Text("x"));
    } else {
      stream.Write(Error("QUEUE_FULL: later", request.id()));
    }
    return grpc::Status::OK;
  };
  const Record full = Ask({.id = "RESOURCE_EXHAUSTED", .prompt = "x"});
  EXPECT_EQ(full.code, StatusCode::kResourceExhausted);
  EXPECT_EQ(full.error, "QUEUE_FULL: later");
  EXPECT_EQ(Ask({.id = "UNAUTHENTICATED", .prompt = "x"}).code, StatusCode::kUnauthenticated);
  EXPECT_EQ(Ask({.prompt = "x"}).code, StatusCode::kUnknown);  // another server: it does not say
  EXPECT_EQ(Ask({.id = "status", .prompt = "x"}).code, StatusCode::kUnavailable);
  EXPECT_EQ(Ask({.id = "short", .prompt = "x"}).code, StatusCode::kDataLoss);
}

TEST_F(KserveTargetTest, SilenceCancelAndCancelAll) {
  std::atomic<int> running{0};
  service_.infer = [&](const inference::ModelInferRequest&, grpc::ServerContext& context, Stream& stream) {
    for (int i = 0; i < 3; ++i) stream.Write(Text("x"));
    ++running;
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  Record record = Ask({.prompt = "x", .timeout = std::chrono::milliseconds(100)});
  EXPECT_EQ(record.code, StatusCode::kDeadlineExceeded);
  record = Ask({.prompt = "x", .cancel_after_messages = 2});
  EXPECT_EQ(record.code, StatusCode::kCancelled);
  EXPECT_EQ(record.token_ns.size(), 2u);
  test::Sent sent;
  const Record& cancelled = sent.Start(*target_, {.prompt = "x"});
  while (running < 3) std::this_thread::yield();
  target_->CancelAll();
  sent.Wait();
  EXPECT_EQ(cancelled.code, StatusCode::kCancelled);
}

TEST_F(KserveTargetTest, ASlowReaderPausesAfterEachMessage) {
  service_.infer = [](const auto&, auto&, Stream& stream) {
    for (const char* text : {"a", "b", "c"}) stream.Write(Text(text));
    stream.Write(Final());
    return grpc::Status::OK;
  };
  test::Sent sent;
  const Record& record =
      sent.Start(*target_, {.prompt = "x", .read_delay = std::chrono::milliseconds(20), .keep_text = true});
  loop_.Run([&] { return sent.idle(); });
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text, "abc");
  ASSERT_EQ(record.token_ns.size(), 3u);
  for (size_t i = 1; i < 3; ++i) EXPECT_GE(record.token_ns[i] - record.token_ns[i - 1], 20'000'000);
}

TEST_F(KserveTargetTest, EachConnectionIsOneOfItsOwn) {
  service_.infer = [](const auto&, auto&, Stream& stream) {
    stream.Write(Final());
    return grpc::Status::OK;
  };
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(Ask().ok());
  EXPECT_EQ(service_.peers().size(), 2u);
}

TEST_F(KserveTargetTest, CheckFindsTheModel) {
  EXPECT_THAT(Check("small"), IsOk());
  EXPECT_THAT(Check("huge"), StatusIs(StatusCode::kNotFound, AllOf(HasSubstr("'huge'"), HasSubstr("small"))));
  service_.models["large"] = "READY";
  EXPECT_THAT(Check(""), StatusIs(StatusCode::kNotFound, HasSubstr("large, small")));
  service_.models = {{"only", "READY"}};
  ASSERT_THAT(Check(""), IsOk());
  std::string asked;
  service_.infer = [&](const inference::ModelInferRequest& request, auto&, Stream& stream) {
    asked = request.model_name();
    stream.Write(Final());
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Ask().ok());
  EXPECT_EQ(asked, "only");
  service_.has_index = false;  // KServe without Triton's extensions
  EXPECT_THAT(Check("only"), IsOk());
  EXPECT_THAT(Check("huge"), StatusIs(StatusCode::kNotFound));
}

TEST_F(KserveTargetTest, CheckWaitsUntilTheServerIsReady) {
  service_.not_ready = 3;
  EXPECT_THAT(Check("small"), IsOk());
  EXPECT_LT(service_.not_ready, 0);
  service_.models["small"] = "LOADING";
  EXPECT_THAT(Check("small", kShort), StatusIs(StatusCode::kUnavailable, HasSubstr("loading")));
  stop_ = true;
  EXPECT_THAT(Check("small"), StatusIs(StatusCode::kCancelled));
}

TEST_F(KserveTargetTest, CheckSaysWhatIsWrong) {
  service_.token = "secret";
  EXPECT_THAT(Check("small"), StatusIs(StatusCode::kUnauthenticated, HasSubstr("wants a token")));
  options_.token = "wrong";
  EXPECT_THAT(Check("small"), StatusIs(StatusCode::kUnauthenticated, HasSubstr("refuses the token")));
  options_.token = "secret";
  EXPECT_THAT(Check("small"), IsOk());
  server_->Shutdown(std::chrono::system_clock::now());
  EXPECT_THAT(Check("small", kShort), StatusIs(StatusCode::kUnavailable, HasSubstr(options_.url)));
}

TEST_F(KserveTargetTest, ACaFileThatIsNotThereFailsEverything) {
  options_.url.replace(0, 6, "kserves");
  options_.ca_file = "/nonexistent/ca.pem";
  EXPECT_THAT(Check("small"), StatusIs(StatusCode::kInvalidArgument, HasSubstr("ca.pem")));
  EXPECT_EQ(Ask().code, StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::loadtest
