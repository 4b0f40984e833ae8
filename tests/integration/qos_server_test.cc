// QoS through the whole server: policies that act and reverse themselves, quotas, overload of deadlines, breakers, and
// what operators see of it, over real gRPC.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "sluice/v1/qos.grpc.pb.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/test_server.h"
#include "tests/support/temp_folder.h"

namespace sluice::test {
namespace {

flags::LayerContent QosFlag(bool dry_run) {
  flags::LayerContent content;
  content.flags = {
      {.key = "qos_policy", .enabled = true, .rollout_bps = flags::kBuckets, .salt = "qos", .dry_run = dry_run}};
  return content;
}

class QosServerTest : public testing::Test {
 protected:
  void Start(const std::string& yaml, TestServerOptions options = {}) {
    folder_.Write("qos.yaml", yaml);
    options.qos_file = folder_ / "qos.yaml";
    options.enforce_policies = true;
    server_ = std::make_unique<TestServer>(std::move(options));
    qos_ = pb::QosService::NewStub(server_->Channel());
  }

  Reply Ask(const pb::GenerateRequest& request, const std::map<std::string, std::string>& headers = {}) {
    return Generate(server_->inference(), request, -1, headers);
  }

  Reply Ask(const std::string& tenant, pb::PriorityClass priority, int max_tokens) {
    pb::GenerateRequest request = Greedy("hello", max_tokens);
    request.set_tenant(tenant);
    request.set_priority_class(priority);
    request.set_ignore_eos(true);
    return Ask(request);
  }

  pb::GetQosStatusResponse Status() {
    grpc::ClientContext context;
    pb::GetQosStatusResponse response;
    EXPECT_TRUE(qos_->GetQosStatus(&context, {}, &response).ok());
    return response;
  }

  // Asks again and again: the policies are judged on a thread of the server.
  static bool Until(const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      if (done()) return true;
    }
    return false;
  }

  TempFolder folder_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<pb::QosService::Stub> qos_;
};

// Every request violates it at once, and a window of a second forgets it.
constexpr char kLadder[] = R"(
evaluation_interval_ms: 50
policies:
  - id: slow
    mode: enforce
    objectives: [{metric: ttft_p95_ms, at_most: 0.001, window_ms: 1000, min_samples: 3, severity: critical}]
    ladder:
      - limit_max_tokens: 4
      - switch_pipeline: baseline
      - shed: [batch]
    cooldown_ms: 100
    recovered_for_ms: 200
    max_actions: 100
    action_window_ms: 10000
)";

TEST_F(QosServerTest, ALadderIsClimbedToldAndLeftAgain) {
  Start(kLadder, {.ttft_bps = flags::kBuckets});
  const Reply before = Ask("acme", pb::PRIORITY_CLASS_BATCH, 16);
  EXPECT_TRUE(before.status.ok()) << before.status.error_message();
  EXPECT_EQ(before.finish.usage().output_tokens(), 16);
  EXPECT_EQ(before.Trailer("sluice-pipeline"), "ttft");

  Reply shed, shortened;
  EXPECT_TRUE(Until([&] {
    shortened = Ask("acme", pb::PRIORITY_CLASS_INTERACTIVE, 16);
    shed = Ask("acme", pb::PRIORITY_CLASS_BATCH, 16);
    return shed.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
  }));
  EXPECT_EQ(ReasonIn(shed.status), "POLICY_SHED");
  EXPECT_NE(shed.Trailer("sluice-qos").find("rejected;reason=POLICY_SHED"), std::string::npos)
      << shed.Trailer("sluice-qos");
  shortened = Ask("acme", pb::PRIORITY_CLASS_INTERACTIVE, 16);
  ASSERT_TRUE(shortened.status.ok());
  EXPECT_EQ(shortened.finish.usage().output_tokens(), 4);
  EXPECT_EQ(shortened.finish.usage().max_tokens_limit(), 4) << "the client is told";
  EXPECT_EQ(shortened.finish.reason(), "length");
  EXPECT_EQ(shortened.Trailer("sluice-pipeline"), "baseline");
  EXPECT_NE(shortened.Trailer("sluice-qos").find(";max_tokens=4"), std::string::npos)
      << shortened.Trailer("sluice-qos");
  EXPECT_EQ(Status().policies(0).step(), 3);

  // Nobody asks for a while: without data it is neither met nor violated, and in time it leaves its ladder.
  EXPECT_TRUE(Until([&] { return Status().policies(0).step() == 0; }));
  const Reply after = Ask("acme", pb::PRIORITY_CLASS_BATCH, 16);
  EXPECT_TRUE(after.status.ok()) << after.status.error_message();
  EXPECT_EQ(after.finish.usage().output_tokens(), 16);
  EXPECT_EQ(after.finish.usage().max_tokens_limit(), 0);
}

TEST_F(QosServerTest, TheFlagDecidesWhetherPoliciesAct) {
  Start(kLadder, {.ttft_bps = flags::kBuckets});
  for (int i = 0; i < 5; ++i) Ask("acme", pb::PRIORITY_CLASS_BATCH, 16);
  ASSERT_TRUE(Until([&] {
    Ask("acme", pb::PRIORITY_CLASS_INTERACTIVE, 2);
    return Status().policies(0).step() == 3;
  }));
  ASSERT_TRUE(server_->server().ReloadFlags(QosFlag(/*dry_run=*/true), "test").ok());
  const Reply call = Ask("acme", pb::PRIORITY_CLASS_BATCH, 16);
  EXPECT_TRUE(call.status.ok()) << call.status.error_message();
  EXPECT_EQ(call.finish.usage().output_tokens(), 16);

  grpc::ClientContext context;
  pb::ListDecisionsRequest request;
  request.set_limit(1);
  pb::ListDecisionsResponse response;
  ASSERT_TRUE(qos_->ListDecisions(&context, request, &response).ok());
  EXPECT_EQ(response.decisions(0).policy_use(), "dry_run");
  EXPECT_EQ(response.decisions(0).verdict(), "admitted");
}

TEST_F(QosServerTest, AQuotaIsExactUnderParallelClients) {
  Start(R"(
quotas:
  - {tenant: acme, output_tokens_per_minute: 200}
)");
  std::atomic<int> served{0}, refused{0}, tokens{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 40; ++i) {
    clients.emplace_back([&] {
      const Reply call = Ask("acme", pb::PRIORITY_CLASS_STANDARD, 10);
      if (call.status.ok()) {
        ++served;
        tokens += call.finish.usage().output_tokens();
      } else if (ReasonIn(call.status) == "QUOTA_OUTPUT_TOKENS") {
        ++refused;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served + refused, 40);
  EXPECT_GE(served, 20);
  EXPECT_LE(tokens, 200 + 10) << "what a minute allows, and what was refilled meanwhile";
  EXPECT_TRUE(Ask("other", pb::PRIORITY_CLASS_STANDARD, 100).status.ok()) << "nobody else is touched";
}

TEST_F(QosServerTest, AFirstTokenThatCannotComeInTimeIsRefusedAtOnce) {
  engine::SyntheticOptions slow;
  slow.geometry = {.slots = 4, .slot_context = 512};
  slow.prefill_row_cost = std::chrono::milliseconds(5);
  Start("{}", {.backend = slow});
  pb::GenerateRequest request;
  request.set_prompt(std::string(300, 'x'));
  request.set_max_tokens(4);
  ASSERT_TRUE(Ask(request, {}).status.ok()) << "the engine measures its rates";
  const Reply call = Ask(request, {{"x-llm-d-slo-ttft-ms", "50"}});
  EXPECT_EQ(call.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << call.Trailer("sluice-qos");
  EXPECT_EQ(ReasonIn(call.status), "TTFT_UNREACHABLE");
  EXPECT_TRUE(Ask(request, {{"x-llm-d-slo-ttft-ms", "60000"}}).status.ok());
  const Reply bad = Ask(request, {{"x-llm-d-slo-ttft-ms", "soon"}});
  EXPECT_EQ(bad.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(QosServerTest, AnOperatorForcesABreakerAndBaselineServes) {
  Start("{}", {.ttft_bps = flags::kBuckets});
  EXPECT_EQ(Ask("a", pb::PRIORITY_CLASS_STANDARD, 2).Trailer("sluice-pipeline"), "ttft");
  const auto set = [this](const std::string& pipeline, const std::string& state, const std::string& reason) {
    grpc::ClientContext context;
    pb::SetBreakerRequest request;
    request.set_pipeline(pipeline);
    request.set_state(state);
    request.set_reason(reason);
    pb::SetBreakerResponse response;
    return qos_->SetBreaker(&context, request, &response);
  };
  EXPECT_EQ(set("ttft", "ajar", "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(set("warp", "open", "drill").error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(set("ttft", "forced_open", "drill").ok());
  const Reply fallen = Ask("a", pb::PRIORITY_CLASS_STANDARD, 2);
  EXPECT_TRUE(fallen.status.ok()) << "no client sees it";
  EXPECT_EQ(fallen.Trailer("sluice-pipeline"), "baseline");
  EXPECT_NE(fallen.Trailer("sluice-qos").find("fallback=TTFT_CIRCUIT_OPEN"), std::string::npos)
      << fallen.Trailer("sluice-qos");
  ASSERT_TRUE(set("baseline", "forced_open", "drill").ok());
  const Reply refused = Ask("a", pb::PRIORITY_CLASS_STANDARD, 2);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonIn(refused.status), "CIRCUIT_OPEN");
  ASSERT_TRUE(set("ttft", "closed", "over").ok());
  EXPECT_EQ(Ask("a", pb::PRIORITY_CLASS_STANDARD, 2).Trailer("sluice-pipeline"), "ttft");
}

TEST_F(QosServerTest, AFileThatIsChangedActsAndABrokenOneIsRefusedWhole) {
  Start(kLadder);
  EXPECT_EQ(Status().policies(0).id(), "slow");
  const uint64_t epoch = Status().epoch();
  folder_.Write("qos.yaml", "policies: [{id: broken, mode: sometimes}]\n");
  EXPECT_TRUE(Until([&] { return !Status().file_error().empty(); }));
  EXPECT_NE(Status().file_error().find("sometimes"), std::string::npos) << Status().file_error();
  EXPECT_EQ(Status().policies(0).id(), "slow");
  EXPECT_EQ(Status().epoch(), epoch);
  folder_.Write("qos.yaml", "{}\n");
  EXPECT_TRUE(Until([&] { return Status().policies_size() == 0; }));
  EXPECT_EQ(Status().epoch(), epoch + 1);
  EXPECT_EQ(Status().file_error(), "");
}

TEST_F(QosServerTest, ExplainSaysWhatWouldHappenAndTakesNothing) {
  Start("quotas: [{tenant: acme, requests_per_second: 0.001, request_burst: 1}]\n");
  const auto explain = [this] {
    grpc::ClientContext context;
    pb::ExplainQosRequest request;
    request.set_tenant("acme");
    request.set_prompt_tokens(10);
    request.set_max_tokens(10);
    pb::ExplainQosResponse response;
    EXPECT_TRUE(qos_->ExplainQos(&context, request, &response).ok());
    return response;
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(explain().verdict(), "admitted") << "asking costs nothing";
  ASSERT_TRUE(Ask("acme", pb::PRIORITY_CLASS_STANDARD, 2).status.ok());
  EXPECT_EQ(explain().verdict(), "QUOTA_REQUESTS");
  EXPECT_NE(explain().text().find("requests_per_second: asks for 1, 0 left of 1"), std::string::npos)
      << explain().text();
}

}  // namespace
}  // namespace sluice::test
