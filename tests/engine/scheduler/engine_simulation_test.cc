// The whole engine under a manual clock with random traffic: arrivals, cancels, deadlines, slow readers, both
// pipelines, shared prefixes. Invariants hold after every step. Replay one seed: SLUICE_SIM_SEED=<n>.
#include <cstdlib>
#include <map>
#include <random>

#include "base/status.h"
#include "gtest/gtest.h"
#include "tests/engine/scheduler/core_harness.h"

namespace sluice::engine {
namespace {

struct Simulated {
  CoreHarness::Client client;
  std::string prompt;
  int max_tokens;
  bool slow;
  bool disturbed = false;  // cancelled or given a deadline
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : rng_(seed),
        natural_length_(static_cast<int>(rng_() % 2 * 40)),
        harness_({.geometry = {.slots = static_cast<int>(2 + rng_() % 12), .slot_context = 600},
                  .max_batch_tokens = static_cast<int>(32 + rng_() % 200),
                  .step_cost = std::chrono::microseconds(rng_() % 3000),
                  .decode_row_cost = std::chrono::microseconds(rng_() % 1000),
                  .prefill_row_cost = std::chrono::microseconds(rng_() % 1000),
                  .natural_length_max = natural_length_},
                 {.idle_prefill_tokens = static_cast<int>(1 + rng_() % 128)}) {}

  void Run() {
    for (int i = 0; i < 3000; ++i) {
      if (Chance(12)) Arrive();
      if (Chance(60)) CancelOne();
      harness_.core.Step();
      if (Chance(5)) harness_.clock.Advance(std::chrono::milliseconds(rng_() % 20));
      ReadSome(i);
      CheckInvariants();
    }
    for (int i = 0; i < 20000 && !live_.empty(); ++i) {
      if (harness_.core.Step() != EngineCore::StepResult::kComputed) {
        harness_.clock.Advance(std::chrono::milliseconds(5));
      }
      ReadSome(0);
    }
    EXPECT_TRUE(live_.empty()) << live_.size() << " requests never ended";
    EXPECT_EQ(harness_.core.Step(), EngineCore::StepResult::kIdle);
    EXPECT_EQ(harness_.core.Status().orphaned, 0);
    EXPECT_GT(completed_, 20);
  }

 private:
  bool Chance(int one_in) { return rng_() % one_in == 0; }

  void Arrive() {
    const int shared = static_cast<int>(rng_() % 3);
    std::string prompt(static_cast<size_t>(shared) * 90, static_cast<char>('a' + shared));
    for (size_t n = 1 + rng_() % 150; n > 0; --n) prompt += static_cast<char>('a' + rng_() % 26);
    const int max_tokens = static_cast<int>(1 + rng_() % 120);
    Generation g = harness_.Make(prompt, max_tokens, Chance(2) ? BaselinePolicy() : TtftPolicy({}));
    Simulated s{.prompt = prompt, .max_tokens = max_tokens, .slow = Chance(8)};
    if (Chance(10)) {
      g.deadline = harness_.clock.Now() + std::chrono::milliseconds(rng_() % 500);
      s.disturbed = true;
    }
    s.client = harness_.Submit(std::move(g), s.slow ? 3 : 256);
    live_.emplace(next_++, std::move(s));
  }

  void CancelOne() {
    if (live_.empty()) return;
    auto it = std::next(live_.begin(), static_cast<ptrdiff_t>(rng_() % live_.size()));
    it->second.client.stream->Cancel();
    it->second.disturbed = true;
  }

  void ReadSome(int tick) {
    for (auto it = live_.begin(); it != live_.end();) {
      Simulated& s = it->second;
      if (!s.slow || tick % 7 == 0) s.client.Read();
      if (!s.client.finished) {
        ++it;
        continue;
      }
      CheckEnd(s);
      it = live_.erase(it);
    }
  }

  void CheckEnd(const Simulated& s) {
    const auto& summary = s.client.summary;
    const bool whole = summary.reason == FinishReason::kStop || summary.reason == FinishReason::kLength;
    EXPECT_TRUE(whole || s.disturbed) << FinishReasonName(summary.reason) << " " << summary.status;
    if (whole) ++completed_;
    if (!whole || completed_ % 10 != 0) return;  // one in ten is compared in full: it costs an engine of its own
    CoreHarness alone({.natural_length_max = natural_length_});
    auto client = alone.Submit(alone.Make(s.prompt, s.max_tokens));
    alone.Finish(client);
    EXPECT_EQ(client.tokens, s.client.tokens) << s.prompt;
    EXPECT_EQ(client.text, s.client.text);
  }

  void CheckInvariants() {
    const SchedulerStatus status = harness_.core.Status();
    EXPECT_EQ(status.orphaned, 0);
    EXPECT_LE(status.running, status.slots);
    EXPECT_LE(status.kv_tokens_used, status.kv_tokens_total);
  }

  std::mt19937_64 rng_;
  const int natural_length_;
  CoreHarness harness_;
  std::map<int, Simulated> live_;
  int next_ = 0;
  int completed_ = 0;
};

TEST(EngineSimulationTest, InvariantsHoldUnderRandomTraffic) {
  if (const char* one = std::getenv("SLUICE_SIM_SEED")) {
    Simulation(std::strtoull(one, nullptr, 10)).Run();
    return;
  }
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("replay: SLUICE_SIM_SEED=" + std::to_string(seed));
    Simulation(seed).Run();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace sluice::engine
