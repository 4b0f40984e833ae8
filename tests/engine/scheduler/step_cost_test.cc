#include "engine/scheduler/step_cost.h"

#include <random>

#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

double TrueMs(const StepShape& s) { return 5 + 1.5 * s.decode_rows + 2.0 * s.prefill_tokens + 0.4 * s.context / 1000; }

TEST(StepCostTest, LearnsALinearMachineFromNoisySteps) {
  std::mt19937_64 rng(7);
  StepCost cost;
  for (int i = 0; i < 400; ++i) {
    const StepShape s{.decode_rows = static_cast<int>(rng() % 64),
                      .prefill_tokens = static_cast<int>(rng() % 2 == 0 ? 0 : rng() % 200),
                      .context = static_cast<double>(rng() % 50000)};
    const double noise = 0.95 + 0.1 * static_cast<double>(rng() % 1000) / 1000;
    cost.Observe(s, FromMillis(TrueMs(s) * noise));
  }
  for (const StepShape s : {StepShape{1, 0, 500}, StepShape{64, 0, 20000}, StepShape{32, 128, 10000}}) {
    EXPECT_NEAR(ToMillis(cost.Predict(s)), TrueMs(s), 0.1 * TrueMs(s));
  }
}

TEST(StepCostTest, FollowsAMachineThatBecomesSlower) {
  StepCost cost;
  const StepShape s{.decode_rows = 8};
  for (int i = 0; i < 100; ++i) cost.Observe(s, FromMillis(10));
  for (int i = 0; i < 300; ++i) cost.Observe(s, FromMillis(30));
  EXPECT_NEAR(ToMillis(cost.Predict(s)), 30, 1.5);
}

TEST(StepCostTest, OneDescheduledStepTeachesLittle) {
  StepCost cost;
  const StepShape s{.decode_rows = 8};
  for (int i = 0; i < 200; ++i) cost.Observe(s, FromMillis(10));
  cost.Observe(s, std::chrono::seconds(20));
  EXPECT_LT(ToMillis(cost.Predict(s)), 20);
}

TEST(StepCostTest, BudgetBuysWhatThePredictionSays) {
  StepCost cost;
  std::mt19937_64 rng(3);
  for (int i = 0; i < 400; ++i) {
    const int prompts = i % 8 == 0 ? 0 : static_cast<int>(rng() % 128);
    const StepShape s{static_cast<int>(rng() % 32), prompts, static_cast<double>(rng() % 9000)};
    cost.Observe(s, FromMillis(TrueMs(s)));
  }
  const StepShape decode{.decode_rows = 10, .context = 5000};
  const int tokens = cost.PrefillTokensWithin(FromMillis(100), decode, 0);
  EXPECT_NEAR(tokens, (100 - TrueMs(decode)) / 2.0, 3);
  EXPECT_EQ(cost.PrefillTokensWithin(FromMillis(1), decode, 0), 0);
}

// In an overload every step has prompts, and how many follows from the prediction itself: nothing then tells decode
// rows from prompts, and a fit that wants to would drift until steps are several times too long.
TEST(StepCostTest, ALastingOverloadDoesNotInflateTheStep) {
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const auto noise = [&rng] { return 0.85 + 0.3 * static_cast<double>(rng() % 1000) / 1000; };
    StepCost cost;
    for (int i = 0; i < 30; ++i) {  // a quiet beginning
      const StepShape s{.decode_rows = 1 + static_cast<int>(rng() % 8), .prefill_tokens = i % 3 == 0 ? 60 : 0};
      cost.Observe(s, FromMillis(TrueMs(s) * noise()));
    }
    int rows = 24;
    double longest = 0;
    for (int i = 0; i < 3000; ++i) {
      rows = std::clamp(rows + static_cast<int>(rng() % 3) - 1, 16, 32);
      StepShape s{.decode_rows = rows, .context = rows * 100.0};
      const double target = 2 * ToMillis(cost.Predict(s));
      if (!cost.WantsDecodeOnly())
        s.prefill_tokens = std::clamp(cost.PrefillTokensWithin(FromMillis(target), s, 0), 16, 400);
      s.context += s.prefill_tokens * 50.0;
      if (i > 200) longest = std::max(longest, TrueMs(s) / TrueMs({.decode_rows = rows, .context = rows * 100.0}));
      cost.Observe(s, FromMillis(TrueMs(s) * noise()));
    }
    EXPECT_LT(longest, 3) << "times a step of decode rows; 2 is asked for";
  }
}

}  // namespace
}  // namespace sluice::engine
