#include "rollout/arm_recorder.h"

#include <thread>

#include "gtest/gtest.h"

namespace sluice::rollout {
namespace {

using std::chrono::milliseconds;

Settled Of(Arm arm, uint64_t user, bool failed = false) {
  return {.arm = arm,
          .failed = failed,
          .user = user,
          .prompt_tokens = 100,
          .ttft = milliseconds(20),
          .latency = milliseconds(80),
          .request_id = "r"};
}

TEST(ArmRecorder, AUserIsOneEventOfAWindow) {
  ArmRecorder recorder;
  recorder.Record(Of(Arm::kCanary, 1));
  recorder.Record(Of(Arm::kCanary, 1, true));
  recorder.Record(Of(Arm::kCanary, 2, true));
  recorder.Record(Of(Arm::kBaseline, 1));
  Window window = recorder.Cut();
  const ArmWindow& canary = window.arms[1];
  EXPECT_EQ(canary.requests, 3u);
  EXPECT_EQ(canary.events, 2u);
  EXPECT_EQ(canary.failures, 1u) << "the second request of user 1 is no event";
  EXPECT_EQ(window.arms[0].events, 1u);
  EXPECT_EQ(canary.ttft_ms[1].count(), 1u) << "100 tokens; failures have no latency";
  EXPECT_NEAR(canary.latency_ms[1].Quantile(0.5), 80, 1);
  recorder.Record(Of(Arm::kCanary, 1));
  window = recorder.Cut();
  EXPECT_EQ(window.arms[1].events, 1u) << "a new window counts the user again";
}

TEST(ArmRecorder, PromptsFallIntoTheirStrata) {
  ArmRecorder recorder;
  uint64_t user = 0;
  for (const int tokens : {0, 64, 65, 256, 257, 1024, 1025, 100'000}) {
    Settled settled = Of(Arm::kBaseline, ++user);
    settled.prompt_tokens = tokens;
    recorder.Record(settled);
  }
  const Window window = recorder.Cut();
  for (const Sketch& sketch : window.arms[0].ttft_ms) EXPECT_EQ(sketch.count(), 2u);
}

TEST(ArmRecorder, FailuresInARowTripAndASuccessBreaksTheRow) {
  ArmRecorder recorder;
  recorder.TripAfter(3);
  const auto canary = [&recorder](bool failed) { recorder.Record(Of(Arm::kCanary, 1, failed)); };
  for (const bool failed : {true, true, false, true, true}) canary(failed);
  for (int i = 0; i < 5; ++i) recorder.Record(Of(Arm::kBaseline, 1, true));
  EXPECT_FALSE(recorder.tripped());
  canary(true);
  EXPECT_TRUE(recorder.tripped());
  canary(false);
  EXPECT_TRUE(recorder.tripped()) << "until the next attempt";
  EXPECT_EQ(recorder.examples().size(), 5u);
  recorder.Reset();
  EXPECT_FALSE(recorder.tripped());
  EXPECT_TRUE(recorder.examples().empty());
}

TEST(ArmRecorder, BytesAreHeldOverWindowsAndCrashesToldOnce) {
  ArmRecorder recorder;
  recorder.Hold(Arm::kCanary, 1'000);
  recorder.Hold(Arm::kCanary, -400);
  recorder.Crashed(Arm::kCanary, 2);
  Window window = recorder.Cut();
  EXPECT_EQ(window.arms[1].memory_bytes, 600);
  EXPECT_EQ(window.arms[1].crashes, 2u);
  window = recorder.Cut();
  EXPECT_EQ(window.arms[1].memory_bytes, 600);
  EXPECT_EQ(window.arms[1].crashes, 0u);
}

TEST(ArmRecorder, ManyThreadsLoseNothing) {
  ArmRecorder recorder;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&recorder, t] {
      for (uint64_t i = 0; i < 5'000; ++i) recorder.Record(Of(Arm::kCanary, t * 5'000 + i, i % 10 == 0));
    });
  }
  uint64_t requests = 0, failures = 0;
  for (int i = 0; i < 20; ++i) {
    const Window window = recorder.Cut();
    requests += window.arms[1].requests;
    failures += window.arms[1].failures;
  }
  for (std::thread& thread : threads) thread.join();
  const Window rest = recorder.Cut();
  EXPECT_EQ(requests + rest.arms[1].requests, 20'000u);
  EXPECT_EQ(failures + rest.arms[1].failures, 2'000u);
}

}  // namespace
}  // namespace sluice::rollout
