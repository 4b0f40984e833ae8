#include "services/grpc/call_context.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using test::IsOk;
using test::StatusIs;
using testing::AllOf;
using testing::HasSubstr;

// SHA-256 of "token-a" and "token-b", by sha256sum.
constexpr char kShaOfA[] = "a70bf50e531ce1a817561f2f5d5b6645d4e806becf58ccc5e8cf6b8045a090a8";
constexpr char kShaOfB[] = "49e2bb7eab54cf09b409ffafd3fa8a8a955a60eb972faacaefbed3dbd3207132";

std::vector<config::ApiKey> Keys() {
  return {{.name = "team-a",
           .token_sha256 = kShaOfA,
           .tenant = "a",
           .highest_class = qos::QosClass::kBatch,
           .models = {"small"}},
          {.name = "ops", .token_sha256 = kShaOfB, .tenant = "b", .admin = true}};
}

// Monotonic time by hand; wall time as gRPC sees it.
class HandClock final : public Clock {
 public:
  MonoTime Now() const override { return manual.Now(); }
  WallTime WallNow() const override { return SystemClock().WallNow(); }
  test::ManualClock manual;
};

// A real gRPC server within the process: its handler shows the context of each call to `handle`.
class ContextServer {
 public:
  using Handle = std::function<void(const grpc::CallbackServerContext&)>;
  explicit ContextServer(Handle handle) : service_(std::move(handle)) {
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~ContextServer() { server_->Shutdown(); }

  // One call with these headers; returns when it is done.
  void Call(const std::vector<std::pair<std::string, std::string>>& headers,
            std::chrono::system_clock::time_point deadline = std::chrono::system_clock::time_point::max()) {
    grpc::GenericStub stub(server_->InProcessChannel({}));
    grpc::ClientContext context;
    for (const auto& [name, value] : headers) context.AddMetadata(name, value);
    context.set_deadline(deadline);
    grpc::CompletionQueue queue;
    grpc::ByteBuffer empty, response;
    grpc::Status status;
    auto call = stub.PrepareUnaryCall(&context, "/test/Call", empty, &queue);
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
  }

 private:
  struct Reactor final : grpc::ServerGenericBidiReactor {
    void OnDone() override { delete this; }
  };
  struct Service final : grpc::CallbackGenericService {
    explicit Service(Handle h) : handle(std::move(h)) {}
    grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
      handle(*context);
      auto* reactor = new Reactor;
      reactor->Finish(grpc::Status(grpc::StatusCode::ABORTED, "seen"));
      return reactor;
    }
    const Handle handle;
  };
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

class CallContextTest : public testing::Test {
 protected:
  using Headers = std::vector<std::pair<std::string, std::string>>;
  absl::StatusOr<CallContext> Open(
      const CallGuard& guard, const Headers& headers,
      std::chrono::system_clock::time_point deadline = std::chrono::system_clock::time_point::max()) {
    absl::StatusOr<CallContext> result = absl::UnknownError("the call did not arrive");
    ContextServer server([&](const grpc::CallbackServerContext& context) { result = guard.Open(context); });
    server.Call(headers, deadline);
    return result;
  }

  HandClock clock_;
  CallGuard open_guard_{{}, clock_};
  CallGuard guard_{Keys(), clock_};
};

TEST_F(CallContextTest, WithoutKeysEverybodyIsAnUnauthenticatedAdmin) {
  const auto call = Open(open_guard_, {{"authorization", "Bearer whatever"}});
  ASSERT_THAT(call, IsOk());
  EXPECT_FALSE(call->caller.authenticated);
  EXPECT_TRUE(call->caller.admin);
  EXPECT_EQ(call->caller.tenant, "");
  EXPECT_EQ(call->caller.highest_class, qos::QosClass::kSystem);
  EXPECT_THAT(CallGuard::RequireAdmin(*call), IsOk());
  EXPECT_EQ(call->arrival, clock_.Now());
  EXPECT_NE(call->peer, "");
}

TEST_F(CallContextTest, RetriesSayHowOftenTheyWereTried) {
  const auto attempts = [this](const Headers& headers) { return Open(open_guard_, headers)->previous_attempts; };
  EXPECT_EQ(attempts({}), 0);
  EXPECT_EQ(attempts({{"grpc-previous-rpc-attempts", "2"}}), 2);
  // What gRPC itself lets through is a number; other stacks may send anything.
  EXPECT_EQ(attempts({{"grpc-previous-rpc-attempts", "many"}}), 0);
}

TEST_F(CallContextTest, AKnownTokenBringsItsTenantClassAndModels) {
  const auto call = Open(guard_, {{"authorization", "Bearer token-a"}});
  ASSERT_THAT(call, IsOk());
  EXPECT_TRUE(call->caller.authenticated);
  EXPECT_EQ(call->caller.key_name, "team-a");
  EXPECT_EQ(call->caller.tenant, "a");
  EXPECT_EQ(call->caller.highest_class, qos::QosClass::kBatch);
  EXPECT_EQ(call->caller.models, std::vector<std::string>{"small"});
  const absl::Status denied = CallGuard::RequireAdmin(*call);
  EXPECT_THAT(denied, StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("'team-a'")));
  EXPECT_EQ(ReasonOf(denied), "ADMIN_REQUIRED");
}

TEST_F(CallContextTest, TheSchemeIsCaseInsensitiveAndMayBeFollowedByBlanks) {
  for (const char* value : {"bearer token-b", "BEARER token-b", "Bearer   token-b"}) {
    const auto call = Open(guard_, {{"authorization", value}});
    ASSERT_THAT(call, IsOk()) << value;
    EXPECT_EQ(call->caller.key_name, "ops");
    EXPECT_THAT(CallGuard::RequireAdmin(*call), IsOk());
  }
}

TEST_F(CallContextTest, RefusesMissingAndUnknownTokens) {
  const auto reason = [&](const Headers& headers) {
    const auto call = Open(guard_, headers);
    EXPECT_THAT(call, StatusIs(absl::StatusCode::kUnauthenticated));
    EXPECT_THAT(std::string(call.status().message()), testing::Not(HasSubstr("secret")));
    return ReasonOf(call.status());
  };
  EXPECT_EQ(reason({}), "TOKEN_MISSING");
  EXPECT_EQ(reason({{"authorization", "Basic secret"}}), "TOKEN_MISSING");
  EXPECT_EQ(reason({{"authorization", "Bearersecret"}}), "TOKEN_MISSING");
  EXPECT_EQ(reason({{"authorization", "Bearer secret"}}), "TOKEN_UNKNOWN");
  EXPECT_EQ(reason({{"authorization", "Bearer token-"}}), "TOKEN_UNKNOWN");
  EXPECT_EQ(reason({{"authorization", "Bearer token-aa"}}), "TOKEN_UNKNOWN");
  EXPECT_EQ(reason({{"authorization", std::string("Bearer ") + kShaOfA}}), "TOKEN_UNKNOWN");
  EXPECT_EQ(reason({{"authorization", "Bearer token-a"}, {"authorization", "Bearer token-b"}}), "TOKEN_UNKNOWN");
}

TEST_F(CallContextTest, ATokenIsAskedForBeforeOtherHeadersAreJudged) {
  EXPECT_THAT(Open(guard_, {{"x-request-id", std::string(129, 'x')}}), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(CallContextTest, KeepsTheRequestIdOrMakesOne) {
  const std::string longest(128, 'x');
  for (const std::string& id : {std::string("a"), std::string("id with blank~"), longest}) {
    const auto call = Open(open_guard_, {{"x-request-id", id}});
    ASSERT_THAT(call, IsOk());
    EXPECT_EQ(call->request_id, id);
  }
  for (const Headers& headers : {Headers{}, Headers{{"x-request-id", ""}}}) {
    const auto call = Open(open_guard_, headers);
    ASSERT_THAT(call, IsOk());
    EXPECT_EQ(call->request_id.size(), 32u);
    EXPECT_EQ(call->request_id.find_first_not_of("0123456789abcdef"), std::string::npos);
  }
}

TEST_F(CallContextTest, RefusesHeadersThatAreTooLong) {
  const auto too_long = Open(open_guard_, {{"x-request-id", std::string(129, 'x')}});
  EXPECT_THAT(too_long, StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("129"), HasSubstr("128"))));
  ASSERT_EQ(GetErrorDetails(too_long.status()).violations.size(), 1u);
  EXPECT_EQ(GetErrorDetails(too_long.status()).violations[0].field, "header x-request-id");
  EXPECT_THAT(Open(open_guard_, {{"x-sluice-tenant", std::string(256, 't')}}), IsOk());
  EXPECT_THAT(Open(open_guard_, {{"x-sluice-tenant", std::string(257, 't')}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("257")));
}

TEST_F(CallContextTest, CopiesTheHeadersOfDoorsAndNoOthers) {
  const auto call = Open(guard_, {{"authorization", "Bearer token-a"},
                                  {"x-sluice-class", "batch"},
                                  {"x-sluice-tenant", "t"},
                                  {"x-session-id", "s"},
                                  {"x-llm-d-slo-ttft-ms", "500"},
                                  {"x-other", "o"}});
  ASSERT_THAT(call, IsOk());
  const std::map<std::string, std::string> expected = {
      {"x-sluice-class", "batch"}, {"x-sluice-tenant", "t"}, {"x-session-id", "s"}, {"x-llm-d-slo-ttft-ms", "500"}};
  EXPECT_EQ(call->headers, expected);
}

TEST_F(CallContextTest, TurnsTheDeadlineIntoMonotonicTime) {
  const auto no_deadline = Open(open_guard_, {});
  ASSERT_THAT(no_deadline, IsOk());
  EXPECT_EQ(no_deadline->deadline, kInfiniteFuture);

  const auto wall = std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(clock_.WallNow().time_since_epoch()));
  const auto timed = Open(open_guard_, {}, wall + std::chrono::hours(1));
  ASSERT_THAT(timed, IsOk());
  EXPECT_LE(timed->deadline, clock_.Now() + std::chrono::minutes(61));
  EXPECT_GE(timed->deadline, clock_.Now() + std::chrono::minutes(55));  // whatever the machine's load

  const auto centuries = Open(open_guard_, {}, wall + std::chrono::hours(24 * 365 * 200));
  ASSERT_THAT(centuries, IsOk());
  EXPECT_EQ(centuries->deadline, kInfiniteFuture);
}

TEST_F(CallContextTest, CountsACallAsOpenWhileACopyOfItsContextLives) {
  EXPECT_EQ(open_guard_.open_calls(), 0);
  EXPECT_TRUE(open_guard_.WaitIdle(Duration::zero()));
  auto first = Open(open_guard_, {});
  auto second = Open(open_guard_, {});
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(open_guard_.open_calls(), 2);
  auto copy = *first;
  first = absl::UnknownError("gone");
  EXPECT_EQ(open_guard_.open_calls(), 2);
  EXPECT_FALSE(open_guard_.WaitIdle(Duration::zero()));
  copy.open.reset();
  second = absl::UnknownError("gone");
  EXPECT_EQ(open_guard_.open_calls(), 0);
  EXPECT_THAT(Open(open_guard_, {{"x-request-id", std::string(200, 'x')}}), testing::Not(IsOk()));
  EXPECT_EQ(open_guard_.open_calls(), 0) << "a refused call is not open";
}

TEST_F(CallContextTest, WaitIdleReturnsWhenTheLastCallEnds) {
  auto call = Open(open_guard_, {});
  ASSERT_THAT(call, IsOk());
  bool idle = false;
  std::thread waiter([&] { idle = open_guard_.WaitIdle(std::chrono::minutes(10)); });
  call->open.reset();
  waiter.join();
  EXPECT_TRUE(idle);
}

TEST_F(CallContextTest, ACallMayOutliveItsGuard) {
  auto guard = std::make_unique<CallGuard>(std::vector<config::ApiKey>{}, clock_);
  auto call = Open(*guard, {});
  ASSERT_THAT(call, IsOk());
  guard.reset();
  call->open.reset();  // a use after free would show under the address sanitizer
}

TEST(RequestIdTest, IdsDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewRequestId());
  EXPECT_EQ(ids.size(), 1000u);
}

}  // namespace
}  // namespace sluice::services
