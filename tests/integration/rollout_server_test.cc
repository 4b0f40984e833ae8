// Rollouts through the whole server: requests over real gRPC, a real file store, faults injected by the file that
// operators use.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "services/rollout_control.h"
#include "sluice/v1/qos.grpc.pb.h"
#include "sluice/v1/rollout.grpc.pb.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/test_server.h"
#include "tests/support/temp_folder.h"

namespace sluice::test {
namespace {

using ::testing::HasSubstr;

// Tails of tens of microseconds differ by chance, so only gross differences of latency count here.
constexpr char kRollouts[] = R"(
window_ms: 100
rollouts:
  - flag: ttft_pipeline
    stages:
      - {percent: 20, dwell_ms: 300, min_samples: 20}
      - {percent: 60, dwell_ms: 300, min_samples: 20}
      - {percent: 100, dwell_ms: 300, min_samples: 5}
    holdback_percent: 5
    analysis: {allowed_error_percent: 25, max_ttft_p95_ratio: 20, max_latency_p95_ratio: 20}
    rollback: {cool_down_ms: 3600000}
)";

class RolloutServerTest : public testing::Test {
 protected:
  RolloutServerTest() {
    folder_.Write("rollouts.yaml", kRollouts);
    folder_.Write("faults.yaml", "{}\n");
    Start();
  }
  ~RolloutServerTest() override { StopLoad(); }

  void Start(TestServerOptions options = {}) {
    rollouts_.reset();
    server_.reset();
    options.runtime.state_folder = folder_ / "state";
    options.runtime.fault_file = folder_ / "faults.yaml";
    options.runtime.replica_id = "only";
    options.rollouts_file = folder_ / "rollouts.yaml";
    options.ttft_bps = flags::kBuckets;
    server_ = std::make_unique<TestServer>(std::move(options));
    rollouts_ = pb::RolloutService::NewStub(server_->Channel());
  }

  void StartLoad() {
    loading_ = true;
    for (int i = 0; i < 3; ++i) {
      load_.emplace_back([this] {
        while (loading_) {
          const Reply reply = Generate(server_->inference(), Greedy("hello", 2));
          ++(reply.status.ok() ? served_ : failed_);
        }
      });
    }
  }
  void StopLoad() {
    loading_ = false;
    for (std::thread& thread : load_) thread.join();
    load_.clear();
  }

  grpc::Status Order(pb::OrderRolloutRequest::Order order, bool force = false, const std::string& reason = "test") {
    pb::OrderRolloutRequest request;
    request.set_flag("ttft_pipeline");
    request.set_order(order);
    request.set_reason(reason);
    request.set_force(force);
    grpc::ClientContext context;
    pb::OrderRolloutResponse response;
    return rollouts_->OrderRollout(&context, request, &response);
  }
  pb::Rollout Now() {
    grpc::ClientContext context;
    pb::ListRolloutsResponse response;
    EXPECT_TRUE(rollouts_->ListRollouts(&context, {}, &response).ok());
    return response.rollouts_size() == 0 ? pb::Rollout() : response.rollouts(0);
  }
  // The server's threads decide when; asks again and again.
  bool Until(const std::function<bool(const pb::Rollout&)>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end) {
      if (done(Now())) return true;
    }
    ADD_FAILURE() << Now().DebugString();
    return false;
  }
  std::vector<std::string> Evidence() {
    pb::ListRolloutEvidenceRequest request;
    request.set_flag("ttft_pipeline");
    grpc::ClientContext context;
    pb::ListRolloutEvidenceResponse response;
    EXPECT_TRUE(rollouts_->ListRolloutEvidence(&context, request, &response).ok());
    return {response.evidence().begin(), response.evidence().end()};
  }
  std::string Pipeline() { return Generate(server_->inference(), Greedy("hello", 1)).Trailer("sluice-pipeline"); }

  TempFolder folder_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<pb::RolloutService::Stub> rollouts_;
  std::atomic<bool> loading_{false};
  std::atomic<int> served_{0}, failed_{0};
  std::vector<std::thread> load_;
};

TEST_F(RolloutServerTest, AHealthyCandidateClimbsAndKeepsWhatItReachedOverARestart) {
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.phase() == "rolled_back"; }));
  EXPECT_EQ(Now().attempt(), 0u) << "nothing happens before somebody starts it";
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::START).ok());
  StartLoad();
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.phase() == "complete"; }));
  EXPECT_EQ(Now().percent(), 95) << "a hold-back of 5 %";
  EXPECT_EQ(failed_, 0);
  StopLoad();
  EXPECT_EQ(Evidence().size(), 4u) << "one for each percentage, and the end";
  Start();
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.phase() == "complete" && r.percent() == 95; }));
}

TEST_F(RolloutServerTest, FailuresRollBackAtOnceAndItIsSaidWhy) {
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::START).ok());
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.percent() == 20; }));
  folder_.Write("faults.yaml", "ttft: {error_percent: 100}\n");
  StartLoad();
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.phase() == "rolled_back" && r.percent() == 0; }));
  StopLoad();
  const pb::Rollout now = Now();
  EXPECT_THAT(now.cause(), testing::AnyOf(HasSubstr("failures in a row"), HasSubstr("error_rate")));
  for (int i = 0; i < 50; ++i) ASSERT_EQ(Pipeline(), "baseline");
  const std::vector<std::string> evidence = Evidence();
  ASSERT_FALSE(evidence.empty());
  EXPECT_THAT(evidence[0], HasSubstr("\"to\":\"rolled_back\""));
  EXPECT_THAT(Order(pb::OrderRolloutRequest::START).error_message(), HasSubstr("the cool-down lasts another"));
  EXPECT_EQ(failed_, 0) << "baseline served what failed before its stream began";
  folder_.Write("faults.yaml", "{}\n");
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::START, /*force=*/true).ok());
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.attempt() == 2 && r.percent() == 20; }));
}

// Else an attempt after the mend would trip on what the one before it had seen.
TEST_F(RolloutServerTest, ANewAttemptBeginsWithAClosedBreaker) {
  TestServerOptions options;
  options.runtime.breaker.sliding_window_size = options.runtime.breaker.minimum_number_of_calls = 2;
  Start(std::move(options));
  folder_.Write("faults.yaml", "ttft: {error_percent: 100}\n");
  ASSERT_TRUE(Until([this](const pb::Rollout&) { return Pipeline() == "baseline"; })) << "100 % by the file";
  const auto qos = pb::QosService::NewStub(server_->Channel());
  const auto ttft_is = [&qos](const std::string& state) {
    grpc::ClientContext context;
    pb::GetQosStatusResponse response;
    EXPECT_TRUE(qos->GetQosStatus(&context, {}, &response).ok());
    return std::any_of(response.breakers().begin(), response.breakers().end(),
                       [&state](const pb::BreakerStatus& b) { return b.pipeline() == "ttft" && b.state() == state; });
  };
  ASSERT_TRUE(Until([&](const pb::Rollout&) { return Pipeline() == "baseline" && ttft_is("open"); }));
  folder_.Write("faults.yaml", "{}\n");
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::START).ok());
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.percent() == 20; }));
  EXPECT_TRUE(ttft_is("closed"));
}

TEST_F(RolloutServerTest, WhatAPolicySwitchedSaysNothingAboutEitherArm) {
  folder_.Write("qos.yaml", R"(
evaluation_interval_ms: 50
policies:
  - id: slow
    mode: enforce
    objectives: [{metric: ttft_p95_ms, at_most: 0.001, window_ms: 2000, min_samples: 1, severity: critical}]
    ladder: [{switch_pipeline: baseline}]
)");
  TestServerOptions options;
  options.qos_file = folder_ / "qos.yaml";
  options.enforce_policies = true;
  Start(std::move(options));
  StartLoad();
  ASSERT_TRUE(Until([this](const pb::Rollout&) { return Pipeline() == "baseline"; }));
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::START).ok());
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.phase() == "inconclusive"; }));
  EXPECT_THAT(Now().cause(), HasSubstr("too few samples: 0 of the canary and 0 of the baseline"));
  EXPECT_EQ(failed_, 0);
}

TEST_F(RolloutServerTest, OrdersThatDoNotFitAreRefusedAndChangeNothing) {
  EXPECT_THAT(Order(pb::OrderRolloutRequest::PROMOTE).error_message(), HasSubstr("it is rolled_back"));
  EXPECT_EQ(Order(pb::OrderRolloutRequest::START, false, "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Order(pb::OrderRolloutRequest::ORDER_UNSPECIFIED).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::START).ok());
  EXPECT_EQ(Order(pb::OrderRolloutRequest::START).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  ASSERT_TRUE(Until([](const pb::Rollout& r) { return r.percent() == 20; }));
  pb::OrderRolloutRequest stale;
  stale.set_flag("ttft_pipeline");
  stale.set_order(pb::OrderRolloutRequest::PROMOTE);
  stale.set_reason("late");
  stale.set_expected_epoch(1);
  grpc::ClientContext context;
  pb::OrderRolloutResponse response;
  EXPECT_EQ(rollouts_->OrderRollout(&context, stale, &response).error_code(), grpc::StatusCode::ABORTED);
  stale.set_flag("phase5");
  grpc::ClientContext other;
  EXPECT_EQ(rollouts_->OrderRollout(&other, stale, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Now().percent(), 20);
  ASSERT_TRUE(Order(pb::OrderRolloutRequest::ROLLBACK).ok());
  EXPECT_EQ(Now().percent(), 0);
  folder_.Write("rollouts.yaml", "rollouts: [{flag: nonsense}]\n");
  folder_.Write("rollouts.yaml", kRollouts);
  EXPECT_EQ(Now().stages_size(), 3) << "a file that does not fit changes nothing";
}

TEST(RolloutAnalysisJson, SaysWhatArgosWebProviderJudgesBy) {
  rollout::Report report;
  rollout::RolloutReport& one = report.rollouts.emplace_back();
  one.state = {.flag = "f", .epoch = 7, .attempt = 1, .phase = rollout::Phase::kRunning, .stage = 1, .bps = 1'000};
  one.serving.bps = 1'000;
  one.judgement = {.verdict = rollout::Verdict::kPass, .cause = "fine"};
  EXPECT_EQ(services::RolloutAnalysisJson(report, "f"),
            R"({"data":{"cause":"fine","epoch":7,"flag":"f","ok":true,"percent":10.0,"phase":"running","stage":1,)"
            R"("verdict":"pass"}})");
  one.seen.hold = "no telemetry";
  EXPECT_THAT(*services::RolloutAnalysisJson(report, "f"), HasSubstr(R"("verdict":"inconclusive")"));
  one.tripped = true;
  EXPECT_THAT(*services::RolloutAnalysisJson(report, "f"), HasSubstr(R"("verdict":"fail")"));
  EXPECT_FALSE(services::RolloutAnalysisJson(report, "g").has_value());
}

}  // namespace
}  // namespace sluice::test
