#include "engine/scheduler/step_planner.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::Field;

auto Chunk(int id, int tokens) {
  return testing::AllOf(Field(&PrefillChunk::id, id), Field(&PrefillChunk::tokens, tokens));
}

PrefillCandidate Candidate(int id, int uncomputed, int policy = 0) {
  return {.id = id, .policy = policy, .needs_slot = true, .uncomputed = uncomputed, .order = static_cast<uint64_t>(id)};
}

PlanInput Fifo() {
  PlanInput input;
  input.policies = {{.order = PrefillOrder::kFifo}};
  input.free_slots = 10;
  input.min_prefill_tokens = 1;
  return input;
}

TEST(StepPlannerTest, NothingToDo) { EXPECT_TRUE(PlanStep(Fifo(), StepCost()).prefill.empty()); }

TEST(StepPlannerTest, FifoFillsTheIdleAllowanceAndCutsTheLastPrompt) {
  PlanInput input = Fifo();
  input.idle_prefill_tokens = 100;
  input.candidates = {Candidate(0, 60), Candidate(1, 60), Candidate(2, 60)};
  EXPECT_THAT(PlanStep(input, StepCost()).prefill, ElementsAre(Chunk(0, 60), Chunk(1, 40)));
}

TEST(StepPlannerTest, ShortestUncachedFirstWithAgeing) {
  PlanInput input = Fifo();
  input.policies = {{.order = PrefillOrder::kShortestUncachedFirst, .ageing_tokens_per_ms = 1}};
  input.idle_prefill_tokens = 10;
  input.candidates = {Candidate(0, 500), Candidate(1, 20)};
  EXPECT_THAT(PlanStep(input, StepCost()).prefill, ElementsAre(Chunk(1, 10)));
  input.candidates[0].waited_ms = 481;  // 500 - 481 < 20: the long one has waited long enough
  EXPECT_THAT(PlanStep(input, StepCost()).prefill, ElementsAre(Chunk(0, 10)));
}

TEST(StepPlannerTest, TheMostUrgentPriorityGoesFirstInWhateverPolicy) {
  PlanInput input = Fifo();
  input.policies.push_back({.order = PrefillOrder::kShortestUncachedFirst});
  input.idle_prefill_tokens = 200;
  input.candidates = {Candidate(0, 60), Candidate(1, 10, 1), Candidate(2, 70, 1), Candidate(3, 80)};
  input.candidates[2].priority = input.candidates[3].priority = -1;
  EXPECT_THAT(PlanStep(input, StepCost()).prefill,
              testing::UnorderedElementsAre(Chunk(3, 80), Chunk(2, 70), Chunk(1, 10), Chunk(0, 40)));
  input.idle_prefill_tokens = 100;
  for (const PrefillChunk& chunk : PlanStep(input, StepCost()).prefill) EXPECT_GE(chunk.id, 2);
}

TEST(StepPlannerTest, RunningStreamsLimitPrefillToTheTimeBudget) {
  StepCost cost;
  for (int i = 0; i < 200; ++i) {
    cost.Observe({.decode_rows = 10}, FromMillis(20));
    cost.Observe({.decode_rows = 10, .prefill_tokens = 50}, FromMillis(70));
    cost.Observe({.prefill_tokens = 50}, FromMillis(52));
  }
  PlanInput input = Fifo();
  input.decode = {.decode_rows = 10};
  input.step_target = FromMillis(60);
  input.candidates = {Candidate(0, 4000)};
  const StepPlan plan = PlanStep(input, cost);
  ASSERT_EQ(plan.prefill.size(), 1U);
  EXPECT_NEAR(plan.prefill[0].tokens, 40, 5);
}

TEST(StepPlannerTest, PrefillAlwaysProgressesEvenBeyondTheBudget) {
  PlanInput input = Fifo();
  input.decode = {.decode_rows = 64, .context = 64000};
  input.step_target = FromMillis(0.001);
  input.min_prefill_tokens = 16;
  input.candidates = {Candidate(0, 4000)};
  EXPECT_THAT(PlanStep(input, StepCost()).prefill, ElementsAre(Chunk(0, 16)));
}

TEST(StepPlannerTest, PromptsAreNotCutIntoSmallPieces) {
  PlanInput input = Fifo();
  input.min_prefill_tokens = 64;
  input.idle_prefill_tokens = 200;
  const auto plan = [&](std::vector<int> prompts) {
    input.candidates.clear();
    for (const int tokens : prompts)
      input.candidates.push_back(Candidate(static_cast<int>(input.candidates.size()), tokens));
    return PlanStep(input, StepCost()).prefill;
  };
  EXPECT_THAT(plan({260}), ElementsAre(Chunk(0, 260))) << "nearly fits";
  EXPECT_THAT(plan({270}), ElementsAre(Chunk(0, 192))) << "in pieces of 64";
  EXPECT_THAT(plan({100, 120, 10}), ElementsAre(Chunk(0, 100), Chunk(1, 120)));
  EXPECT_THAT(plan({150, 120, 10}), ElementsAre(Chunk(0, 150))) << "the next one waits for a step of its own";
  input.max_rows = 220;
  EXPECT_THAT(plan({260}), ElementsAre(Chunk(0, 192))) << "no more than the backend takes";
  input.max_rows = 30;
  EXPECT_THAT(plan({260}), ElementsAre(Chunk(0, 30))) << "a small piece is better than none";
}

TEST(StepPlannerTest, DecodeRowsTakeTheirShareOfTheRows) {
  PlanInput input = Fifo();
  input.max_rows = 64;
  input.decode = {.decode_rows = 60};
  input.candidates = {Candidate(0, 4000)};
  EXPECT_THAT(PlanStep(input, StepCost()).prefill, ElementsAre(Chunk(0, 4)));
}

TEST(StepPlannerTest, WithoutFreeSlotsOnlyStartedPromptsGoOn) {
  PlanInput input = Fifo();
  input.free_slots = 0;
  input.candidates = {Candidate(0, 30), Candidate(1, 30)};
  input.candidates[1].needs_slot = false;
  EXPECT_THAT(PlanStep(input, StepCost()).prefill, ElementsAre(Chunk(1, 30)));
}

// A canary must not gain by robbing its control: the arm with short prompts may not push the other arm aside.
TEST(StepPlannerTest, PoliciesShareByWaitingWork) {
  PlanInput input = Fifo();
  input.policies = {{.order = PrefillOrder::kFifo}, {.order = PrefillOrder::kShortestUncachedFirst}};
  input.idle_prefill_tokens = 100;
  std::map<int, int> computed;
  for (int step = 0; step < 200; ++step) {
    input.candidates = {Candidate(0, 1000, 0), Candidate(1, 10, 1), Candidate(2, 10, 1), Candidate(3, 10, 1)};
    const StepPlan plan = PlanStep(input, StepCost());
    for (const PrefillChunk& c : plan.prefill) computed[c.id == 0 ? 0 : 1] += c.tokens;
    for (size_t p = 0; p < 2; ++p) input.policies[p].service = plan.service[p];
  }
  EXPECT_GT(computed[0], 200 * 60);  // policy 1 brings 30 tokens a step at most; the rest is policy 0's
  EXPECT_GT(computed[1], 200 * 29);
}

TEST(StepPlannerTest, AnIdlePolicySavesUpNoCredit) {
  PlanInput input = Fifo();
  input.policies = {{.order = PrefillOrder::kFifo, .service = 1e6}, {.order = PrefillOrder::kFifo, .service = 0}};
  input.idle_prefill_tokens = 512;
  int first = 0;
  for (int step = 0; step < 8; ++step) {
    input.candidates = {Candidate(0, 10000, 0), Candidate(1, 10000, 1)};
    const StepPlan plan = PlanStep(input, StepCost());
    for (const PrefillChunk& c : plan.prefill) first += c.id == 0 ? c.tokens : 0;
    for (size_t p = 0; p < 2; ++p) input.policies[p].service = plan.service[p];
  }
  EXPECT_NEAR(first, 8 * 512 / 2, 1024);
}

}  // namespace
}  // namespace sluice::engine
