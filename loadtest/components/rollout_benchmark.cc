// Rollouts: what a request pays for being counted, and what a window pays for being judged.
#include <array>
#include <chrono>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "fmt/format.h"
#include "loadtest/components/measure.h"
#include "rollout/analysis/analysis.h"
#include "rollout/analysis/dwell_plan.h"
#include "rollout/analysis/simulation.h"
#include "rollout/analysis/window_codec.h"
#include "rollout/arm_recorder.h"

namespace sluice::components {
namespace {

using namespace rollout;  // NOLINT: the subject

constexpr uint64_t kSeed = 20261123;
constexpr uint64_t kUsers = 4'096;

// What counting a request is measured against: the cheapest way to tell anybody, a virtual call that does nothing but
// return a constant (two of them, else nobody is called).
class Listener {
 public:
  virtual ~Listener() = default;
  virtual bool Ended(const Settled& request) = 0;
};
class Deaf final : public Listener {
 public:
  bool Ended(const Settled& /*request*/) override { return false; }
};
class Pleased final : public Listener {
 public:
  bool Ended(const Settled& /*request*/) override { return true; }
};

std::vector<Settled> Requests() {
  std::mt19937_64 random(kSeed);
  std::lognormal_distribution<double> latency(std::log(200), 0.6);
  std::vector<Settled> requests(kUsers);
  for (uint64_t i = 0; i < kUsers; ++i) {
    requests[i] = {.arm = random() % 10 == 0 ? Arm::kCanary : Arm::kBaseline,
                   .failed = random() % 200 == 0,
                   .user = random(),
                   .prompt_tokens = static_cast<int>(random() % 2'000),
                   .ttft = FromMillis(latency(random)),
                   .latency = FromMillis(2 * latency(random)),
                   .request_id = "req-0000"};
  }
  return requests;
}

void VirtualConstant(benchmark::State& state) {
  const std::vector<Settled> requests = Requests();
  Deaf deaf;
  Pleased pleased;
  const std::array<Listener*, 2> listeners = {&deaf, &pleased};
  size_t next = 0;
  Measure(state, [&] {
    const size_t i = next++;
    benchmark::DoNotOptimize(listeners[i & 1]->Ended(requests[i % kUsers]));
  });
}
BENCHMARK(VirtualConstant)->Name("rollout/virtual_constant");

// Every user but for the first round is known in the window: the usual case of a busy one.
void CountRequest(benchmark::State& state) {
  const std::vector<Settled> requests = Requests();
  ArmRecorder recorder;
  size_t next = 0;
  Measure(state, [&] { recorder.Record(requests[next++ % kUsers]); });
}
BENCHMARK(CountRequest)->Name("rollout/count_request");

// Every user is an event: the window is cut after each round, and its time is part of it.
void CountEvent(benchmark::State& state) {
  const std::vector<Settled> requests = Requests();
  ArmRecorder recorder;
  size_t next = 0;
  Measure(state, [&] {
    recorder.Record(requests[next % kUsers]);
    if (++next % kUsers == 0) benchmark::DoNotOptimize(recorder.Cut());
  });
}
BENCHMARK(CountEvent)->Name("rollout/count_event");

// The windows of one index: 500 requests on each replica.
std::vector<Window> Windows(int replicas, int64_t index) {
  ArmRecorder recorder;
  std::vector<Settled> requests = Requests();
  std::vector<Window> windows;
  for (int r = 0; r < replicas; ++r) {
    for (size_t i = 0; i < 500; ++i) recorder.Record(requests[(static_cast<size_t>(r) * 500 + i) % kUsers]);
    Window window = recorder.Cut();
    window.attempt = "ttft_pipeline#1";
    window.replica = fmt::format("replica-{:02}", r);
    window.index = index;
    window.length = std::chrono::seconds(10);
    window.canary_bps = 1'000;
    windows.push_back(std::move(window));
  }
  return windows;
}

// One window of each replica is weighed. Memory and recent tails are full, as after half an hour.
void AddWindows(benchmark::State& state) {
  std::vector<Window> windows = Windows(static_cast<int>(state.range(0)), 0);
  Analysis analysis(AnalysisOptions{});
  analysis.OnStage(1'000);
  int64_t index = 0;
  const auto add = [&] {
    for (Window& window : windows) window.index = index;
    ++index;
    analysis.Add(windows);
  };
  for (int i = 0; i < 200; ++i) add();
  Measure(state, add, /*items=*/state.range(0));
}
BENCHMARK(AddWindows)->Name("rollout/add_windows")->Arg(1)->Arg(3)->Arg(32);

// The judgement of one tick.
void JudgeTick(benchmark::State& state) {
  std::vector<Window> windows = Windows(3, 0);
  Analysis analysis(AnalysisOptions{});
  analysis.OnStage(1'000);
  for (int64_t index = 0; index < state.range(0); ++index) {
    for (Window& window : windows) window.index = index;
    analysis.Add(windows);
  }
  Measure(state, [&] { benchmark::DoNotOptimize(analysis.Judge()); });
}
BENCHMARK(JudgeTick)->Name("rollout/judge")->Arg(10)->Arg(180);

void WriteReadWindow(benchmark::State& state) {
  const Window window = Windows(1, 7).front();
  Measure(state, [&] {
    const auto read = DecodeWindow(Encode(window));
    SLUICE_CHECK(read.ok(), "reads what it wrote");
    benchmark::DoNotOptimize(read);
  });
}
BENCHMARK(WriteReadWindow)->Name("rollout/write_read_window");

// One trial of the simulation's table, of an hour.
void SimulateTrial(benchmark::State& state) {
  SimulationOptions options = {.trials = 1};
  Measure(state, [&] {
    ++options.seed;
    benchmark::DoNotOptimize(Simulate(options, nullptr));
  });
}
BENCHMARK(SimulateTrial)->Name("rollout/simulate_trial")->Unit(benchmark::kMillisecond);

void PlanStage(benchmark::State& state) {
  const Traffic traffic;
  Measure(state, [&] { benchmark::DoNotOptimize(ToPass({}, traffic, 1'000)); });
}
BENCHMARK(PlanStage)->Name("rollout/plan_stage");

}  // namespace
}  // namespace sluice::components
