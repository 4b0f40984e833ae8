#include "rollout/rollout_machine.h"

#include <random>

#include "gtest/gtest.h"

namespace sluice::rollout {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

const WallTime kStart = WallTime(std::chrono::hours(500'000));

RolloutSpec Spec() {
  RolloutSpec spec{.flag = "ttft_pipeline"};
  for (Stage& stage : spec.stages) stage.dwell = minutes(1);
  for (Stage& stage : spec.stages) stage.min_samples = 100;
  return spec;
}

Observation Passing() {
  return {.verdict = Verdict::kPass, .cause = "passes", .canary_events = 100, .baseline_events = 100};
}
Observation Undecided() { return {.canary_events = 1'000, .baseline_events = 1'000}; }
Observation Failing() { return {.verdict = Verdict::kFail, .cause = "error_rate 4x"}; }

RolloutState Started(const RolloutSpec& spec) {
  auto state = Obey(spec, {.flag = spec.flag}, Order::kStart, "alice", "go", 0, false, kStart);
  EXPECT_TRUE(state.ok()) << state.status();
  return *state;
}

// Advances until nothing moves, at one moment.
RolloutState Settle(const RolloutSpec& spec, RolloutState state, const Observation& seen, WallTime now) {
  for (int i = 0; i < 10; ++i) {
    const auto next = Advance(spec, state, seen, now);
    if (!next) return state;
    EXPECT_EQ(next->epoch, state.epoch + 1);
    state = *next;
  }
  ADD_FAILURE() << "never settles in " << PhaseName(state.phase);
  return state;
}

RolloutState RunningAt(const RolloutSpec& spec, size_t stage, WallTime* now) {
  RolloutState state = Settle(spec, Started(spec), Undecided(), *now);
  while (state.stage < stage) {
    *now += minutes(2);
    state = Settle(spec, state, Passing(), *now);
  }
  return state;
}

TEST(RolloutMachine, AHealthyCandidateClimbsByItselfAndKeepsAHoldBack) {
  const RolloutSpec spec = Spec();
  WallTime now = kStart;
  RolloutState state = Settle(spec, Started(spec), Passing(), now);
  std::vector<uint32_t> shares = {state.bps};
  while (state.phase != Phase::kComplete) {
    now += minutes(1);
    state = Settle(spec, state, Passing(), now);
    if (state.bps != shares.back()) shares.push_back(state.bps);
    ASSERT_LT(now, kStart + minutes(10)) << PhaseName(state.phase);
  }
  EXPECT_EQ(shares, (std::vector<uint32_t>{100, 1'000, 5'000, 9'900}));
  EXPECT_EQ(now, kStart + minutes(4)) << "one dwell each";
  EXPECT_EQ(Settle(spec, state, Passing(), now + minutes(60)), state);
}

TEST(RolloutMachine, NothingPassesBeforeItsDwellNorWithoutItsSamplesNorWithoutAVerdict) {
  const RolloutSpec spec = Spec();
  WallTime now = kStart;
  const RolloutState running = RunningAt(spec, 0, &now);
  ASSERT_EQ(running.phase, Phase::kRunning);
  EXPECT_EQ(Settle(spec, running, Passing(), now + seconds(59)), running) << "dwell";

  Observation few = Passing();
  few.baseline_events = 99;
  RolloutState state = Settle(spec, running, few, now + minutes(60));
  EXPECT_EQ(state.phase, Phase::kInconclusive);
  EXPECT_EQ(state.bps, running.bps);
  EXPECT_EQ(state.cause, "too few samples: 100 of the canary and 99 of the baseline, wanted 100 each");
  few.baseline_expected = false;
  EXPECT_EQ(Settle(spec, running, few, now + minutes(1)).stage, 1u) << "nobody is left to compare with";

  state = Settle(spec, running, Undecided(), now + minutes(60));
  EXPECT_EQ(state.phase, Phase::kInconclusive);
  EXPECT_EQ(Settle(spec, state, Passing(), now + minutes(61)).stage, 1u);
}

TEST(RolloutMachine, ANewStageWaitsUntilEveryReplicaServesIt) {
  const RolloutSpec spec = Spec();
  Observation seen = Passing();
  seen.everybody_follows = false;
  const RolloutState state = Settle(spec, Started(spec), seen, kStart);
  EXPECT_EQ(state.phase, Phase::kPromoting);
  EXPECT_EQ(Settle(spec, state, seen, kStart + minutes(60)), state);
  EXPECT_EQ(Advance(spec, state, Undecided(), kStart)->phase, Phase::kRunning);
}

TEST(RolloutMachine, FailTripAndAnOperatorTakeEveryServingPhaseToZero) {
  const RolloutSpec spec = Spec();
  WallTime now = kStart;
  const RolloutState running = RunningAt(spec, 1, &now);
  for (const Phase phase :
       {Phase::kRunning, Phase::kInconclusive, Phase::kHolding, Phase::kPromoting, Phase::kPaused, Phase::kComplete}) {
    RolloutState state = running;
    state.phase = phase;
    const auto failed = Advance(spec, state, Failing(), now);
    ASSERT_TRUE(failed.has_value()) << PhaseName(phase);
    EXPECT_EQ(failed->phase, Phase::kRolledBack);
    EXPECT_EQ(failed->bps, 0u);
    EXPECT_EQ(failed->cause, "error_rate 4x");
    Observation tripped = Passing();
    tripped.trip = "replica b: 5 failures in a row";
    EXPECT_EQ(Advance(spec, state, tripped, now)->cause, tripped.trip);
    EXPECT_EQ(Obey(spec, state, Order::kRollback, "bob", "hm", {}, false, now)->bps, 0u);
  }
}

TEST(RolloutMachine, DoubtHoldsAndNeitherPromotesNorRollsBack) {
  const RolloutSpec spec = Spec();
  WallTime now = kStart;
  const RolloutState running = RunningAt(spec, 1, &now);
  Observation doubtful = Passing();
  doubtful.hold = "no telemetry of replica b for 60 s";
  now += minutes(60);
  const RolloutState held = Settle(spec, running, doubtful, now);
  EXPECT_EQ(held.phase, Phase::kHolding);
  EXPECT_EQ(held.bps, running.bps);
  EXPECT_EQ(held.cause, doubtful.hold);
  EXPECT_EQ(Settle(spec, held, doubtful, now + minutes(600)), held);
  EXPECT_EQ(Settle(spec, held, Passing(), now).stage, 2u) << "it goes on when the doubt ends";
  Observation failing = Failing();
  failing.hold = doubtful.hold;
  EXPECT_EQ(Advance(spec, held, failing, now)->phase, Phase::kRolledBack) << "evidence that was gathered stands";
}

TEST(RolloutMachine, ManualPromotionWaitsForAPerson) {
  RolloutSpec spec = Spec();
  spec.promotion = Promotion::kManual;
  RolloutState state = Settle(spec, Started(spec), Passing(), kStart);
  state = Settle(spec, state, Passing(), kStart + minutes(60));
  EXPECT_EQ(state.phase, Phase::kHolding);
  EXPECT_EQ(state.stage, 0u);
  const auto promoted = Obey(spec, state, Order::kPromote, "alice", "looks good", state.epoch, false, kStart);
  ASSERT_TRUE(promoted.ok());
  EXPECT_EQ(promoted->bps, 1'000u);
  EXPECT_EQ(promoted->cause, "alice: looks good");
}

TEST(RolloutMachine, OrdersThatDoNotFitAreRefusedWithTheReason) {
  const RolloutSpec spec = Spec();
  WallTime now = kStart;
  const RolloutState running = RunningAt(spec, 0, &now);
  const auto refused = [&](const RolloutState& state, Order order, std::optional<uint64_t> epoch = {}) {
    return std::string(Obey(spec, state, order, "a", "b", epoch, false, now).status().message());
  };
  EXPECT_EQ(refused(running, Order::kStart),
            "cannot start the rollout of 'ttft_pipeline': it is running (attempt 1, 1 %); one rollout of a flag at a "
            "time");
  EXPECT_NE(refused(running, Order::kPromote, running.epoch - 1).find("somebody was faster"), std::string::npos);
  const RolloutState back = *Obey(spec, running, Order::kRollback, "a", "b", {}, false, now);
  EXPECT_NE(refused(back, Order::kPromote).find("it is rolled_back"), std::string::npos);
  EXPECT_NE(refused(back, Order::kRollback).find("nothing of it is served"), std::string::npos);
  EXPECT_NE(refused(back, Order::kStart).find("the cool-down lasts another 1800 s; --force"), std::string::npos);
  EXPECT_EQ(Obey(spec, back, Order::kStart, "a", "b", {}, /*force=*/true, now)->attempt, 2u);
  EXPECT_EQ(Obey(spec, back, Order::kStart, "a", "b", {}, false, now + minutes(30))->phase, Phase::kPending);
  const RolloutState paused = *Obey(spec, running, Order::kHold, "a", "b", {}, false, now);
  EXPECT_EQ(Settle(spec, paused, Passing(), now + minutes(600)), paused);
  EXPECT_EQ(Obey(spec, paused, Order::kStart, "a", "b", {}, false, now)->phase, Phase::kRunning);
}

TEST(RolloutMachine, AGradualRollbackGoesDownTheStagesAndATripDoesNot) {
  RolloutSpec spec = Spec();
  spec.rollback = RollbackStyle::kGradual;
  WallTime now = kStart;
  const RolloutState running = RunningAt(spec, 2, &now);
  RolloutState state = *Advance(spec, running, Failing(), now);
  std::vector<uint32_t> shares = {state.bps};
  while (state.bps > 0) {
    EXPECT_FALSE(Advance(spec, state, Passing(), now + seconds(59))) << "one step a minute";
    now += minutes(1);
    const auto next = Advance(spec, state, Passing(), now);
    ASSERT_TRUE(next.has_value());
    EXPECT_EQ(next->phase, Phase::kRolledBack);
    state = *next;
    shares.push_back(state.bps);
  }
  EXPECT_EQ(shares, (std::vector<uint32_t>{1'000, 100, 0}));
  Observation tripped;
  tripped.trip = "crash";
  EXPECT_EQ(Advance(spec, running, tripped, now)->bps, 0u);
}

TEST(RolloutMachine, RetriesAfterTheCoolDownAndNotForEver) {
  RolloutSpec spec = Spec();
  spec.after_rollback = AfterRollback::kRetry;
  spec.max_attempts = 3;
  WallTime now = kStart;
  RolloutState state = Started(spec);
  for (int i = 0; i < 50; ++i) {
    state = Settle(spec, state, Failing(), now);
    now += minutes(1);
  }
  for (int i = 0; i < 500; ++i) {
    if (const auto next = Advance(spec, state, Failing(), now)) state = *next;
    now += minutes(1);
  }
  EXPECT_EQ(state.attempt, 3u);
  EXPECT_EQ(state.phase, Phase::kRolledBack);
}

// Whatever is seen, in whatever order: the percentage rises only by one stage at a time, only by a pass with samples
// after the dwell or a person's word; and a fail or trip is never followed by more than it was.
TEST(RolloutMachine, RandomHistoriesNeverRaiseWithoutEvidence) {
  constexpr uint32_t seed = 20261123;
  std::mt19937 random(seed);
  const auto pick = [&random](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  for (int history = 0; history < 300; ++history) {
    RolloutSpec spec = Spec();
    spec.promotion = pick(2) ? Promotion::kAutomatic : Promotion::kManual;
    spec.rollback = pick(2) ? RollbackStyle::kInstant : RollbackStyle::kGradual;
    spec.after_rollback = pick(2) ? AfterRollback::kRetry : AfterRollback::kStay;
    RolloutState state{.flag = spec.flag};
    WallTime now = kStart;
    for (int step = 0; step < 200; ++step) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << " history " << history << " step " << step);
      now += seconds(pick(120));
      const RolloutState before = state;
      if (pick(4) == 0) {
        const auto next = Obey(spec, state, static_cast<Order>(pick(4)), "x", "y", {}, pick(2) == 0, now);
        if (next.ok()) state = *next;
        ASSERT_LE(state.stage, before.stage + 1);
        continue;
      }
      Observation seen{.verdict = static_cast<Verdict>(pick(3)),
                       .canary_events = static_cast<uint64_t>(pick(200)),
                       .baseline_events = static_cast<uint64_t>(pick(200)),
                       .everybody_follows = pick(3) != 0};
      if (pick(5) == 0) seen.hold = "doubt";
      if (pick(20) == 0) seen.trip = "trip";
      if (const auto next = Advance(spec, state, seen, now)) state = *next;
      if (state.bps > before.bps && before.phase != Phase::kPending) {
        ASSERT_EQ(seen.verdict, Verdict::kPass);
        ASSERT_TRUE(seen.hold.empty() && seen.trip.empty());
        ASSERT_EQ(spec.promotion, Promotion::kAutomatic);
        ASSERT_GE(std::min(seen.canary_events, seen.baseline_events), 100u);
        ASSERT_GE(now - before.stage_since, minutes(1));
        ASSERT_EQ(state.stage, before.stage + 1);
      }
      if (!seen.trip.empty()) {
        ASSERT_EQ(state.bps, 0u);
      }
      ASSERT_LE(state.history.size(), RolloutState::kMaxHistory);
    }
  }
}

TEST(RolloutSpec, FaultsAreNamed) {
  EXPECT_TRUE(CheckSpec(Spec()).ok());
  RolloutSpec spec = Spec();
  spec.stages = {{.bps = 1'000}, {.bps = 500}, {.bps = 20'000}};
  spec.holdback_bps = 600;
  EXPECT_EQ(CheckSpec(spec).message(),
            "rollout of 'ttft_pipeline': holdback: 6 % is too much; allowed are 0 to 5 %; stages[1]: 5 % does not rise "
            "above the 10 % before it; stages[2]: 200 % is not more than 0 and at most 100 %");
  spec = Spec();
  spec.holdback_bps = 500;
  spec.stages = {{.bps = 9'600}, {.bps = kAllBps}};
  EXPECT_NE(CheckSpec(spec).message().find("it serves no more than the 96 % before it"), absl::string_view::npos);
  spec.stages.clear();
  EXPECT_FALSE(CheckSpec(spec).ok());
}

}  // namespace
}  // namespace sluice::rollout
