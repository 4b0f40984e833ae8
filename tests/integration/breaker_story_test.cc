// The circuit breaker of the ttft pipeline through the whole server: faults are injected by the file that operators
// use, real clients call over real gRPC, and none of them sees an error.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "sluice/v1/qos.grpc.pb.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/test_server.h"
#include "tests/support/temp_folder.h"

namespace sluice::test {
namespace {

constexpr int kProbes = 3;  // that half-open permits

class BreakerStory : public testing::Test {
 protected:
  BreakerStory() {
    folder_.Write("faults.yaml", "{}\n");
    TestServerOptions options;
    options.ttft_bps = flags::kBuckets;
    options.runtime.fault_file = folder_ / "faults.yaml";
    options.runtime.breaker = {.slow_call_duration = std::chrono::milliseconds(100),
                               .permitted_calls_in_half_open = kProbes,
                               .sliding_window_size = 10,
                               .minimum_number_of_calls = 10,
                               .wait_in_open = std::chrono::seconds(1)};
    server_ = std::make_unique<TestServer>(std::move(options));
    qos_ = pb::QosService::NewStub(server_->Channel());
  }

  void Inject(const std::string& fault) { folder_.Write("faults.yaml", fault); }

  struct Served {
    int ttft = 0;    // that ttft served
    int failed = 0;  // that ttft failed and baseline served
    int other = 0;   // that baseline served because the breaker is open
    int errors = 0;
  };
  // So many clients at once, a request each.
  Served Ask(int clients) {
    std::atomic<int> ttft{0}, failed{0}, other{0}, errors{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < clients; ++i) {
      threads.emplace_back([&] {
        const Reply reply = Generate(server_->inference(), Greedy("hello", 2));
        const bool fell_back = reply.Trailer("sluice-qos").find("fallback=TTFT_FAILED") != std::string::npos;
        const bool by_ttft = reply.Trailer("sluice-pipeline") == "ttft";
        ++(!reply.status.ok() ? errors : by_ttft ? ttft : fell_back ? failed : other);
      });
    }
    for (std::thread& thread : threads) thread.join();
    errors_ += errors;
    return {.ttft = ttft, .failed = failed, .other = other, .errors = errors};
  }
  // Asks until `done`, which the server's own time brings.
  bool AskUntil(const std::function<bool(const Served&)>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end) {
      if (done(Ask(16))) return true;
    }
    return false;
  }

  std::string State() {
    grpc::ClientContext context;
    pb::GetQosStatusResponse response;
    EXPECT_TRUE(qos_->GetQosStatus(&context, {}, &response).ok());
    for (const pb::BreakerStatus& breaker : response.breakers()) {
      if (breaker.pipeline() == "ttft") return breaker.state();
    }
    return "none";
  }

  void OpensProbesAndCloses(const std::string& fault) {
    EXPECT_EQ(Ask(16).ttft, 16);
    Inject(fault);
    ASSERT_TRUE(AskUntil([this](const Served&) { return State() == "open"; }));
    EXPECT_EQ(Ask(16).other, 16) << "baseline has taken over";
    for (int round = 0; round < 2; ++round) {
      int probes = 0;  // the first may be among the last of 16 clients; the others are then among the next
      EXPECT_TRUE(AskUntil([&](const Served& served) {
        probes += served.ttft + served.failed;
        return probes > 0 && State() == "open";
      }));
      EXPECT_EQ(probes, kProbes) << "round " << round << " of half-open";
    }
    Inject("{}\n");
    EXPECT_TRUE(AskUntil([](const Served& served) { return served.ttft == 16; }));
    EXPECT_EQ(State(), "closed");
    EXPECT_EQ(errors_, 0) << "no client saw anything";
  }

  TempFolder folder_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<pb::QosService::Stub> qos_;
  int errors_ = 0;
};

TEST_F(BreakerStory, ASlowPipelineIsLeftProbedAndTakenBack) { OpensProbesAndCloses("ttft: {delay_ms: 300}\n"); }

// What fails before its stream begins is served by baseline.
TEST_F(BreakerStory, AFailingPipelineIsLeftProbedAndTakenBack) { OpensProbesAndCloses("ttft: {error_percent: 100}\n"); }

}  // namespace
}  // namespace sluice::test
