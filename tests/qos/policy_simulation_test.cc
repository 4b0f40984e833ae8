// The engine in a closed loop with what it acts on: a server whose TTFT follows its load, hours in seconds.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <random>

#include "gtest/gtest.h"
#include "qos/policy_engine.h"
#include "tests/qos/policy_test_support.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr uint8_t kBatch = Bit(QosClass::kBatch);

Policy Ladder() {
  Policy policy = Enforced("ttft", {AtMost("ttft_p95_ms", 500, 20)}, {Limit(256), Queue(kBatch, 4), Shed(kBatch)});
  policy.objectives[0].window = seconds(30);
  policy.scope.classes = Bit(QosClass::kInteractive);
  policy.acts_on = Scope{};
  policy.violated_for = seconds(3);
  return policy;
}

// Each relief that holds takes work off the server; TTFT grows steeply with what remains.
class Plant {
 public:
  Plant(uint32_t seed, Policy policy)
      : policy_(std::move(policy)), random_(seed), engine_(SetOf({policy_}), clock_, metrics_) {}

  // One second at `load` (1: what the server can do).
  void Second(double load) {
    const PolicyEffects effects = engine_.Decide({.qos_class = QosClass::kBatch, .max_tokens = 1000});
    if (!effects.enforced.max_tokens_by.empty()) load *= 0.85;
    if (engine_.class_caps()[static_cast<size_t>(QosClass::kBatch)] != kNoClassCap) load *= 0.8;
    if (!effects.enforced.shed_by.empty()) load *= 0.7;
    std::lognormal_distribution<double> ttft(std::log(120 + 500 * load * load * load), 0.3);
    for (int i = 0; i < 5; ++i) {
      engine_.Record({.qos_class = QosClass::kInteractive, .ended = clock_.Now(), .ttft = FromMillis(ttft(random_))});
    }
    clock_.Advance(seconds(1));
    const int before = step();
    engine_.Evaluate({});
    if (step() != before) Note(step() - before);
    highest_ = std::max(highest_, step());
  }
  void Run(Duration time, double load) {
    for (Duration t{}; t < time; t += seconds(1)) Second(load);
  }

  int step() const { return engine_.Status()[0].step; }
  int highest() const { return highest_; }
  size_t steps() const { return all_.size(); }
  std::mt19937& random() { return random_; }
  // Of any action_window: the most steps up, and the most turns.
  int most_up() const { return most_up_; }
  int most_turns() const { return most_turns_; }

 private:
  void Note(int direction) {
    EXPECT_EQ(std::abs(direction), 1);
    all_.push_back({clock_.Now(), direction});
    int up = 0, turns = 0, last = 0;
    for (const auto& [at, d] : all_) {
      if (clock_.Now() - at >= policy_.action_window) continue;
      up += d > 0 ? 1 : 0;
      turns += last != 0 && d != last ? 1 : 0;
      last = d;
    }
    most_up_ = std::max(most_up_, up);
    most_turns_ = std::max(most_turns_, turns);
  }

  const Policy policy_;
  std::mt19937 random_;
  test::ManualClock clock_;
  MetricsRegistry metrics_;
  PolicyEngine engine_;
  std::deque<std::pair<MonoTime, int>> all_;
  int highest_ = 0, most_up_ = 0, most_turns_ = 0;
};

TEST(PolicySimulation, RandomLoadNeverBreaksTheLimitsAndCalmLeadsBack) {
  constexpr uint32_t kFirstSeed = 1, kSeeds = 6;
  std::printf("seeds %u to %u\n", kFirstSeed, kFirstSeed + kSeeds - 1);
  size_t steps = 0;
  for (uint32_t seed = kFirstSeed; seed < kFirstSeed + kSeeds; ++seed) {
    Policy policy = Ladder();
    policy.max_reversals = static_cast<int>(seed % 4);
    policy.max_actions = 2 + static_cast<int>(seed % 3);
    Plant plant(seed, policy);
    std::uniform_real_distribution<double> loads(0.3, 1.8);
    std::uniform_int_distribution<int> lengths(5, 200);
    for (int phase = 0; phase < 60; ++phase) plant.Run(seconds(lengths(plant.random())), loads(plant.random()));
    EXPECT_LE(plant.most_up(), policy.max_actions) << "seed " << seed;
    EXPECT_LE(plant.most_turns(), policy.max_reversals) << "seed " << seed;
    EXPECT_EQ(plant.highest(), 3) << "seed " << seed << ": the load was enough to climb";
    plant.Run(minutes(8), 0.3);
    EXPECT_EQ(plant.step(), 0) << "seed " << seed;
    steps += plant.steps();
  }
  EXPECT_GT(steps, 50u) << "something happened";
}

// The trap of every ladder: the relief cures the violation, so it is taken away, so the violation is back. Hysteresis
// cannot help where no step fits the load; loop detection bounds how often it turns, and a long window damps it.
TEST(PolicySimulation, AConstantOverloadTurnsNoMoreThanAllowed) {
  for (const double load : {1.0, 1.2, 1.6}) {
    Policy damped = Ladder();
    damped.action_window = hours(1);
    damped.max_reversals = 2;
    Plant plain(3, Ladder()), calm(3, damped);
    plain.Run(hours(3), load);
    calm.Run(hours(3), load);
    std::printf("load %.1f: %zu steps in 3 hours, damped %zu\n", load, plain.steps(), calm.steps());
    EXPECT_LE(plain.most_turns(), Ladder().max_reversals) << load;
    EXPECT_LE(calm.most_turns(), 2) << load;
    EXPECT_LE(calm.steps(), 24u) << load;
    EXPECT_GE(calm.highest(), 1) << load;
  }
}

}  // namespace
}  // namespace sluice::qos
