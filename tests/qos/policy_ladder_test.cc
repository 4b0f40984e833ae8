#include "qos/policy_ladder.h"

#include <cstdio>
#include <random>

#include "gtest/gtest.h"
#include "tests/qos/policy_test_support.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

Policy ThreeSteps() {
  return Enforced("p", {AtMost("ttft_p95_ms", 100)},
                  {Limit(128), SwitchPipeline("baseline"), Shed(Bit(QosClass::kBatch))});
}

// A policy at a manual time.
struct Climber {
  Policy policy = ThreeSteps();
  MonoTime now{seconds(1000)};
  LadderState state{.since = now, .verdict_since = now};

  LadderDecision Say(Verdict verdict) { return Advance(policy, verdict, now, &state); }
  // Says `verdict` each second of `time`; counts steps up, down and repeats.
  struct Counts {
    int up = 0, down = 0, repeats = 0;
  };
  Counts For(Duration time, Verdict verdict) {
    Counts counts;
    for (const MonoTime end = now + time; now < end; now += seconds(1)) {
      const LadderDecision decision = Say(verdict);
      counts.up += decision.direction > 0 ? 1 : 0;
      counts.down += decision.direction < 0 ? 1 : 0;
      counts.repeats += decision.direction == 0 && decision.repeat ? 1 : 0;
    }
    return counts;
  }
};

TEST(PolicyLadder, ClimbsOneStepEachCooldownToTheTop) {
  Climber climber;
  EXPECT_EQ(climber.Say(Verdict::kViolated).direction, +1) << "violated_for is zero";
  climber.now += milliseconds(9'999);
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kCooldown);
  climber.now += milliseconds(1);
  EXPECT_EQ(climber.Say(Verdict::kViolated).direction, +1);
  climber.now += seconds(10);
  EXPECT_EQ(climber.Say(Verdict::kViolated).direction, +1);
  climber.now += seconds(10);
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kTop);
  EXPECT_EQ(climber.state.step, 3);
}

TEST(PolicyLadder, WaitsForViolatedForWithoutABreak) {
  Climber climber;
  climber.policy.violated_for = seconds(5);
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kViolatedFor);
  climber.now += seconds(4);
  climber.Say(Verdict::kHeld);  // a break
  climber.now += seconds(1);
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kViolatedFor);
  climber.now += seconds(5);
  EXPECT_EQ(climber.Say(Verdict::kViolated).direction, +1);
}

TEST(PolicyLadder, LeavesStepByStepAfterRecovery) {
  Climber climber;
  climber.For(seconds(25), Verdict::kViolated);
  ASSERT_EQ(climber.state.step, 3);
  EXPECT_EQ(climber.For(seconds(20), Verdict::kRecovered).down, 0);
  EXPECT_EQ(climber.For(seconds(20), Verdict::kRecovered).down, 1);
  EXPECT_EQ(climber.For(seconds(20), Verdict::kRecovered).down, 1);
  EXPECT_EQ(climber.For(seconds(20), Verdict::kRecovered).down, 1);
  EXPECT_EQ(climber.state.step, 0);
  EXPECT_EQ(climber.For(minutes(10), Verdict::kRecovered).down, 0);
}

TEST(PolicyLadder, HeldNeitherClimbsNorLeaves) {
  Climber climber;
  climber.For(seconds(15), Verdict::kViolated);
  ASSERT_EQ(climber.state.step, 2);
  climber.For(minutes(30), Verdict::kHeld);
  EXPECT_EQ(climber.state.step, 2);
  climber.For(seconds(19), Verdict::kRecovered);
  climber.For(seconds(1), Verdict::kHeld);  // a break
  climber.For(seconds(20), Verdict::kRecovered);
  EXPECT_EQ(climber.state.step, 2) << "recovered_for starts again after a break";
}

TEST(PolicyLadder, UnknownHoldsTheStepAndLeavesAfterALongSilence) {
  Climber climber;
  EXPECT_EQ(SilenceBeforeLeaving(climber.policy), 2 * seconds(60) + seconds(20));
  climber.For(minutes(60), Verdict::kUnknown);
  EXPECT_EQ(climber.state.step, 0);
  climber.For(seconds(15), Verdict::kViolated);
  ASSERT_EQ(climber.state.step, 2);
  climber.For(seconds(139), Verdict::kUnknown);
  EXPECT_EQ(climber.state.step, 2);
  climber.For(seconds(2), Verdict::kUnknown);
  EXPECT_EQ(climber.state.step, 1);
  climber.For(seconds(20), Verdict::kUnknown);
  EXPECT_EQ(climber.state.step, 0);
}

// Ancestor defect f: a sustained violation was remediated once, at its start.
TEST(PolicyLadder, RepeatsOnceActionsWhileTheViolationLasts) {
  Climber climber;
  climber.policy.ladder = {Alert("ops")};
  climber.policy.max_actions = 100;
  const Climber::Counts counts = climber.For(seconds(100), Verdict::kViolated);
  EXPECT_EQ(counts.up, 1);
  EXPECT_EQ(counts.repeats, 9) << "each cooldown of 10 s";
  EXPECT_EQ(climber.For(seconds(100), Verdict::kHeld).repeats, 0);
}

TEST(PolicyLadder, RepeatsAreCappedAndGoOnWhenTheWindowMovesOn) {
  Climber climber;
  climber.policy.ladder = {Alert("ops")};
  const Climber::Counts counts = climber.For(minutes(5), Verdict::kViolated);
  EXPECT_EQ(counts.up + counts.repeats, 5);
  EXPECT_EQ(climber.Say(Verdict::kViolated).repeat, true) << "the first one is 5 minutes old";
  climber.now += seconds(5);
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kCooldown);
  climber.For(minutes(1), Verdict::kViolated);
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kCap);
}

// Ancestor defect c: loop detection compared keys of another form than it kept, so it could never fire.
TEST(PolicyLadder, ALoopIsHeldUntilTheWindowMovesOn) {
  Climber climber;
  climber.policy.cooldown = climber.policy.recovered_for = seconds(5);
  climber.policy.max_actions = 100;
  climber.policy.max_reversals = 3;
  // Up, down, up, down: three reversals. The next turn is one too many.
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(climber.Say(Verdict::kViolated).direction, +1) << i;
    climber.now += seconds(6);
    climber.Say(Verdict::kRecovered);
    climber.now += seconds(6);
    ASSERT_EQ(climber.Say(Verdict::kRecovered).direction, -1) << i;
    climber.now += seconds(6);
  }
  EXPECT_EQ(climber.Say(Verdict::kViolated).hold, Hold::kLoop);
  const MonoTime held = climber.now;
  while (climber.Say(Verdict::kViolated).hold == Hold::kLoop) climber.now += seconds(1);
  EXPECT_EQ(climber.state.step, 1);
  // 18 s before it was held there was the first reversal.
  EXPECT_EQ(climber.now - held, minutes(5) - seconds(24));
}

TEST(PolicyLadder, AnEmptyLadderOnlyObserves) {
  Climber climber;
  climber.policy.ladder.clear();
  const Climber::Counts counts = climber.For(minutes(10), Verdict::kViolated);
  EXPECT_EQ(counts.up + counts.repeats, 0);
}

// Whatever the verdicts: caps, cooldown and reversals hold in every window, the state stays bounded, and a time of
// recovery leads back to the ground.
TEST(PolicyLadder, LongSeededSimulation) {
  constexpr uint32_t kFirstSeed = 1, kSeeds = 150;
  for (uint32_t seed = kFirstSeed; seed < kFirstSeed + kSeeds; ++seed) {
    std::mt19937 random(seed);
    const auto between = [&](int min, int max) { return std::uniform_int_distribution<int>(min, max)(random); };
    Climber climber;
    Policy& policy = climber.policy;
    const std::vector<Action> actions = {Alert("a"), Limit(64), Unload(), Shed(Bit(QosClass::kBatch)),
                                         Alert("b"), Limit(32)};
    policy.ladder.assign(actions.begin(), actions.begin() + between(1, 6));
    policy.cooldown = seconds(between(0, 30));
    policy.violated_for = seconds(between(0, 10));
    policy.recovered_for = seconds(between(0, 40));
    policy.max_actions = between(1, 8);
    policy.max_reversals = between(0, 6);
    policy.action_window = seconds(between(10, 300));
    std::vector<LadderState::Move> moves;  // all that were ever made
    const auto note = [&](const LadderDecision& decision) {
      if (decision.direction != 0 || decision.repeat) moves.push_back({climber.now, decision.direction});
    };
    for (int i = 0; i < 2000; ++i) {
      const auto verdict = static_cast<Verdict>(between(0, 3));
      for (int calls = between(1, 40); calls > 0; --calls) {
        note(climber.Say(verdict));
        climber.now += milliseconds(between(100, 2000));
      }
      ASSERT_GE(climber.state.step, 0) << "seed " << seed;
      ASSERT_LE(climber.state.step, static_cast<int>(policy.ladder.size())) << "seed " << seed;
      ASSERT_LE(climber.state.moves.size(), 2u * static_cast<size_t>(policy.max_actions) + policy.ladder.size())
          << "seed " << seed;
    }
    for (size_t i = 0; i < moves.size(); ++i) {
      if (i > 0) {
        ASSERT_GE(moves[i].at - moves[i - 1].at, policy.cooldown) << "seed " << seed << ", move " << i;
      }
      int acted = 0, reversals = 0, last = 0;
      for (size_t j = i; j < moves.size() && moves[j].at - moves[i].at < policy.action_window; ++j) {
        acted += moves[j].direction >= 0 ? 1 : 0;
        reversals += moves[j].direction != 0 && last != 0 && moves[j].direction != last ? 1 : 0;
        if (moves[j].direction != 0) last = moves[j].direction;
      }
      ASSERT_LE(acted, policy.max_actions) << "seed " << seed << ", window from move " << i;
      ASSERT_LE(reversals, policy.max_reversals) << "seed " << seed << ", window from move " << i;
    }
    const auto steps = static_cast<int>(policy.ladder.size());
    climber.For(policy.action_window + (steps + 1) * (policy.recovered_for + policy.cooldown + seconds(2)),
                Verdict::kRecovered);
    ASSERT_EQ(climber.state.step, 0) << "seed " << seed << " does not return";
  }
  std::printf("seeds %u to %u\n", kFirstSeed, kFirstSeed + kSeeds - 1);
}

}  // namespace
}  // namespace sluice::qos
