#include "services/grpc/status_mapping.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "services/request.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::services {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Key;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

// What a client gets when a handler ends with `status`: through a real loopback connection, with a client's own limits.
class Wire final : public v1::InferenceService::CallbackService {
 public:
  struct Received {
    grpc::Status status;
    google::rpc::Status details;
    std::multimap<std::string, std::string> trailers;

    template <typename Detail>
    std::optional<Detail> Get() const {
      Detail detail;
      for (const auto& any : details.details()) {
        if (any.UnpackTo(&detail)) return detail;
      }
      return std::nullopt;
    }
  };

  static Received Send(const absl::Status& status, const FlowInfo& info = {},
                       std::optional<int> tokens_emitted = std::nullopt) {
    Wire wire(status, info, tokens_emitted);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&wire);
    const auto server = builder.BuildAndStart();
    const auto stub = v1::InferenceService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    Received received{.status = stub->ListModels(&context, {}, &response)};
    EXPECT_TRUE(received.details.ParseFromString(received.status.error_details()));
    for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
      received.trailers.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
    }
    return received;
  }

 private:
  Wire(const absl::Status& status, const FlowInfo& info, std::optional<int> tokens_emitted)
      : status_(status), info_(info), tokens_emitted_(tokens_emitted) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
                                       v1::ListModelsResponse*) override {
    const grpc::Status wire = ToGrpcStatus(status_, *context, info_.request_id, tokens_emitted_);
    AddTrailers(info_, *context);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(wire);
    return reactor;
  }

  const absl::Status status_;
  const FlowInfo info_;
  const std::optional<int> tokens_emitted_;
};

TEST(StatusMappingTest, OkHasNoDetails) {
  const auto received = Wire::Send(absl::OkStatus(), {.request_id = "r1"});
  EXPECT_TRUE(received.status.ok());
  EXPECT_EQ(received.status.error_details(), "");
  EXPECT_THAT(received.trailers, Not(Contains(Key("grpc-retry-pushback-ms"))));
}

TEST(StatusMappingTest, DetailsReachTheClient) {
  ErrorDetails details{.retry_after = std::chrono::microseconds(1'250'100)};
  details.metadata = {{"queue_limit", "256"}};
  const auto received = Wire::Send(MakeError(Reason::kQueueFull, "the queue is full", details), {.request_id = "r1"});
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(received.status.error_message(), "the queue is full");
  EXPECT_EQ(received.details.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(received.details.message(), "the queue is full");
  const auto info = received.Get<google::rpc::ErrorInfo>();
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason(), "QUEUE_FULL");
  EXPECT_EQ(info->domain(), "sluice");
  EXPECT_EQ(info->metadata().at("queue_limit"), "256");
  EXPECT_EQ(info->metadata().at("retry_safe"), "true");
  EXPECT_FALSE(info->metadata().contains("tokens_emitted"));
  const auto retry = received.Get<google::rpc::RetryInfo>();
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 250'100'000);
  EXPECT_EQ(received.Get<google::rpc::RequestInfo>()->request_id(), "r1");
  EXPECT_FALSE(received.Get<google::rpc::BadRequest>().has_value());
  // Rounded up: never sooner than the server asked.
  EXPECT_THAT(received.trailers, Contains(Pair("grpc-retry-pushback-ms", "1251")));
}

TEST(StatusMappingTest, ViolationsNameFieldAndRange) {
  const auto received = Wire::Send(InvalidFields({{"sampling.temperature", "got 3.5; allowed 0 to 2"}, {"b", "c"}}));
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad = received.Get<google::rpc::BadRequest>();
  ASSERT_TRUE(bad.has_value());
  ASSERT_EQ(bad->field_violations_size(), 2);
  EXPECT_EQ(bad->field_violations(0).field(), "sampling.temperature");
  EXPECT_EQ(bad->field_violations(0).description(), "got 3.5; allowed 0 to 2");
  EXPECT_EQ(bad->field_violations(1).field(), "b");
  EXPECT_FALSE(received.Get<google::rpc::RequestInfo>().has_value());  // there is no id yet
}

TEST(StatusMappingTest, UsedUpQuotasAreNamed) {
  const auto received = Wire::Send(
      MakeError(Reason::kQuotaRequests, "used up", {.violations = {{"tenant:a", "5 of 5 requests per second"}}}));
  const auto failure = received.Get<google::rpc::QuotaFailure>();
  ASSERT_TRUE(failure.has_value());
  ASSERT_EQ(failure->violations_size(), 1);
  EXPECT_EQ(failure->violations(0).subject(), "tenant:a");
  EXPECT_EQ(failure->violations(0).description(), "5 of 5 requests per second");
  EXPECT_FALSE(received.Get<google::rpc::BadRequest>().has_value());
}

TEST(StatusMappingTest, SaysWhatWasEmittedAndWhetherARetryIsSafe) {
  const absl::Status failed = MakeError(Reason::kEngineStepFailed, "x");
  const auto metadata = [&](std::optional<int> tokens) {
    const auto info = Wire::Send(failed, {}, tokens).Get<google::rpc::ErrorInfo>();
    return std::map<std::string, std::string>(info->metadata().begin(), info->metadata().end());
  };
  using Map = std::map<std::string, std::string>;
  EXPECT_EQ(metadata(std::nullopt), (Map{{"retry_safe", "false"}}));
  EXPECT_EQ(metadata(0), (Map{{"retry_safe", "true"}, {"tokens_emitted", "0"}}));
  EXPECT_EQ(metadata(7), (Map{{"retry_safe", "false"}, {"tokens_emitted", "7"}}));
}

TEST(StatusMappingTest, EveryCodeKeepsItsMeaningAndHasAReason) {
  const std::map<absl::StatusCode, grpc::StatusCode> table = {
      {absl::StatusCode::kCancelled, grpc::StatusCode::CANCELLED},
      {absl::StatusCode::kUnknown, grpc::StatusCode::UNKNOWN},
      {absl::StatusCode::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT},
      {absl::StatusCode::kDeadlineExceeded, grpc::StatusCode::DEADLINE_EXCEEDED},
      {absl::StatusCode::kNotFound, grpc::StatusCode::NOT_FOUND},
      {absl::StatusCode::kAlreadyExists, grpc::StatusCode::ALREADY_EXISTS},
      {absl::StatusCode::kPermissionDenied, grpc::StatusCode::PERMISSION_DENIED},
      {absl::StatusCode::kResourceExhausted, grpc::StatusCode::RESOURCE_EXHAUSTED},
      {absl::StatusCode::kFailedPrecondition, grpc::StatusCode::FAILED_PRECONDITION},
      {absl::StatusCode::kAborted, grpc::StatusCode::ABORTED},
      {absl::StatusCode::kOutOfRange, grpc::StatusCode::OUT_OF_RANGE},
      {absl::StatusCode::kUnimplemented, grpc::StatusCode::UNIMPLEMENTED},
      {absl::StatusCode::kInternal, grpc::StatusCode::INTERNAL},
      {absl::StatusCode::kUnavailable, grpc::StatusCode::UNAVAILABLE},
      {absl::StatusCode::kDataLoss, grpc::StatusCode::DATA_LOSS},
      {absl::StatusCode::kUnauthenticated, grpc::StatusCode::UNAUTHENTICATED}};
  for (const auto& [code, expected] : table) {
    const auto received = Wire::Send(absl::Status(code, "why"));
    EXPECT_EQ(received.status.error_code(), expected);
    EXPECT_EQ(received.Get<google::rpc::ErrorInfo>()->reason(), absl::StatusCodeToString(code));
  }
}

TEST(StatusMappingTest, PushbackStopsRetriesThatCannotHelp) {
  EXPECT_THAT(Wire::Send(absl::ResourceExhaustedError("quota")).trailers,
              Contains(Pair("grpc-retry-pushback-ms", "-1")));
  EXPECT_THAT(Wire::Send(absl::UnavailableError("open")).trailers, Contains(Pair("grpc-retry-pushback-ms", "-1")));
  EXPECT_THAT(Wire::Send(absl::NotFoundError("model")).trailers, Not(Contains(Key("grpc-retry-pushback-ms"))));
}

TEST(StatusMappingTest, TrailersExplainAndCannotBreakTheProtocol) {
  const auto received = Wire::Send(absl::NotFoundError("no such model"), {.request_id = "r1",
                                                                          .model = "a\nb\xC3\xA9\x7F",
                                                                          .pipeline = "ttft",
                                                                          .flags = "phase5=on;reason=STATIC",
                                                                          .qos = ""});
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(received.trailers, Contains(Pair("sluice-request-id", "r1")));
  EXPECT_THAT(received.trailers, Contains(Pair("sluice-model", "a?b???")));
  EXPECT_THAT(received.trailers, Contains(Pair("sluice-pipeline", "ttft")));
  EXPECT_THAT(received.trailers, Contains(Pair("sluice-flags", "phase5=on;reason=STATIC")));
  EXPECT_THAT(received.trailers, Not(Contains(Key("sluice-qos"))));
}

// A client with default limits drops a call whose trailers exceed 8 KiB, and says RESOURCE_EXHAUSTED instead.
TEST(StatusMappingTest, TheLargestErrorStillArrives) {
  std::string accents;
  while (accents.size() < 5000) accents += "\xC3\xA9";
  ErrorDetails details{.retry_after = std::chrono::hours(1)};
  for (int i = 0; i < 100; ++i) details.violations.push_back({"field" + accents, accents});
  for (int i = 0; i < 100; ++i) details.metadata["key" + std::to_string(i)] = std::string(50, 'v');
  const std::string big(5000, 'x');
  const auto received = Wire::Send(MakeError(Reason::kInvalidField, accents, details),
                                   {.request_id = big, .model = big, .pipeline = big, .flags = big, .qos = big});
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << received.status.error_message();
  EXPECT_THAT(received.status.error_message(), StartsWith("\xC3\xA9\xC3\xA9"));
  EXPECT_THAT(received.status.error_message(), testing::EndsWith("\xC3\xA9..."));  // no half character
  const auto bad = received.Get<google::rpc::BadRequest>();
  ASSERT_TRUE(bad.has_value());
  ASSERT_GE(bad->field_violations_size(), 2);
  const auto& last = bad->field_violations(bad->field_violations_size() - 1);
  EXPECT_EQ(last.description(), "and " + std::to_string(101 - bad->field_violations_size()) + " more");
}

TEST(StatusMappingTest, MalformedTextIsRepaired) {
  const auto received = Wire::Send(InvalidFields({{"prompt", "\xFF\xFE"}}));
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(received.Get<google::rpc::BadRequest>()->field_violations(0).description(), HasSubstr("\xEF\xBF\xBD"));
}

}  // namespace
}  // namespace sluice::services
