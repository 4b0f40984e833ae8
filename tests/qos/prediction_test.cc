#include "qos/prediction.h"

#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr MonoTime kNow{seconds(1000)};
// 1,000 prompt tokens a second; four streams at 10 tokens a second each.
constexpr EngineLoad kLoad{.slots = 8, .running = 4, .prefill_tokens_per_second = 1000, .decode_tokens_per_second = 40};

double Ttft(const EngineLoad& load, int prompt, const Ahead& ahead = {}) {
  return ToMillis(Predict(load, prompt, 1, ahead)->ttft);
}

TEST(PredictTest, PrefillThenThePaceOfAStream) {
  const std::optional<Prediction> p = Predict(kLoad, 500, 21);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->ttft, milliseconds(500));
  EXPECT_EQ(p->finish, milliseconds(500 + 20 * 100));
}

TEST(PredictTest, NotKnownBeforeRatesAreMeasured) {
  EXPECT_FALSE(Predict({}, 10, 10));
  EXPECT_FALSE(Predict({.prefill_tokens_per_second = 1000}, 10, 10));
  EXPECT_FALSE(Predict({.decode_tokens_per_second = 10}, 10, 10));
}

TEST(PredictTest, PromptsAheadComeFirst) {
  EngineLoad load = kLoad;
  load.uncomputed_prompt_tokens = 2000;
  EXPECT_EQ(Ttft(load, 100), 2100);
  EXPECT_EQ(Ttft(load, 100, {.prompt_tokens = 1000}), 3100);
}

TEST(PredictTest, PlacesByLittlesLaw) {
  // Two permits are free and five wait: four must end, two a second do.
  EXPECT_EQ(Ttft(kLoad, 0, {.requests = 5, .free_permits = 2, .completions_per_second = 2}), 2000);
  EXPECT_EQ(Ttft(kLoad, 0, {.requests = 1, .free_permits = 2, .completions_per_second = 2}), 0);
  EXPECT_FALSE(Predict(kLoad, 0, 1, {.requests = 5, .free_permits = 2})) << "nobody has ended yet";
  // More permits than slots: three of those in the engine must end first.
  EngineLoad waiting = kLoad;
  waiting.running = 8;
  waiting.waiting = 2;
  EXPECT_EQ(Ttft(waiting, 0, {.free_permits = 90, .completions_per_second = 1}), 3000);
  waiting.slots = 0;
  EXPECT_EQ(Ttft(waiting, 0, {.free_permits = 90, .completions_per_second = 1}), 0) << "slots are not known";
  // Places and prompts pass at the same time.
  EngineLoad busy = kLoad;
  busy.uncomputed_prompt_tokens = 1500;
  EXPECT_EQ(Ttft(busy, 100, {.requests = 3, .free_permits = 2, .completions_per_second = 1}), 2100);
}

TEST(PredictTest, HugeNumbersStayFinite) {
  EngineLoad load = kLoad;
  load.uncomputed_prompt_tokens = std::numeric_limits<int64_t>::max() / 2;
  const auto p = Predict(load, std::numeric_limits<int>::max(), std::numeric_limits<int>::max());
  ASSERT_TRUE(p);
  EXPECT_GT(p->ttft, std::chrono::hours(24));
  EXPECT_GE(p->finish, p->ttft);
  EXPECT_GT(SaturatingAdd(kNow, p->finish), kNow);
}

std::optional<Reason> Judged(const Request& request, const Prediction& prediction, double tolerance = 1) {
  const std::optional<Late> late = Judge(request, prediction, kNow, tolerance);
  return late ? std::optional(late->reason) : std::nullopt;
}

TEST(JudgeTest, ObjectiveAndDeadline) {
  const Prediction p{.ttft = seconds(2), .finish = seconds(10)};
  EXPECT_EQ(Judged({}, p), std::nullopt) << "nobody asked for anything";
  EXPECT_EQ(Judged({.deadline = kNow + seconds(10)}, p), std::nullopt);
  EXPECT_EQ(Judged({.deadline = kNow + seconds(9)}, p), Reason::kDeadlineUnreachable);
  EXPECT_EQ(Judged({.ttft_objective = milliseconds(1999)}, p), Reason::kTtftUnreachable);
  EXPECT_EQ(Judged({.ttft_objective = seconds(2)}, p), std::nullopt);
  EXPECT_EQ(Judged({.arrival = kNow - seconds(1), .ttft_objective = seconds(2)}, p), Reason::kTtftUnreachable)
      << "the objective counts from arrival";
}

TEST(JudgeTest, OfADefaultDeadlineOnlyTheFirstTokenCounts) {
  const Prediction p{.ttft = seconds(2), .finish = seconds(10)};
  EXPECT_EQ(Judged({.deadline = kNow + seconds(5), .default_deadline = true}, p), std::nullopt);
  EXPECT_EQ(Judged({.deadline = kNow + seconds(1), .default_deadline = true}, p), Reason::kDeadlineUnreachable);
}

TEST(JudgeTest, ToleranceOfDeadlinesOnly) {
  const Prediction p{.ttft = seconds(2), .finish = seconds(10)};
  EXPECT_EQ(Judged({.ttft_objective = milliseconds(1999)}, p, 1.25), Reason::kTtftUnreachable);
  EXPECT_EQ(Judged({.deadline = kNow + seconds(8)}, p, 1.25), std::nullopt);
  EXPECT_EQ(Judged({.deadline = kNow + milliseconds(7999)}, p, 1.25), Reason::kDeadlineUnreachable);
}

TEST(TtftCorrectionTest, LearnsByHowMuchFirstTokensAreLate) {
  TtftCorrection correction;
  EXPECT_EQ(correction.factor(), 1);
  for (int i = 0; i < 200; ++i) correction.Learn(milliseconds(300), milliseconds(600));
  EXPECT_NEAR(correction.factor(), 2, 0.01);
  for (int i = 0; i < 20; ++i) correction.Learn(milliseconds(5), milliseconds(50));
  EXPECT_NEAR(correction.factor(), 2, 0.1) << "a few ms more or less say little";
  correction.Learn(Duration::zero(), seconds(1));  // nothing was predicted
  correction.Learn(seconds(1), Duration::zero());  // nothing came, and nobody waited for it
  EXPECT_NEAR(correction.factor(), 2, 0.1);
  for (int i = 0; i < 300; ++i) correction.Learn(milliseconds(300), milliseconds(300));
  EXPECT_NEAR(correction.factor(), 1, 0.01);
}

TEST(TtftCorrectionTest, IsBounded) {
  TtftCorrection late, early;
  for (int i = 0; i < 300; ++i) {
    late.Learn(milliseconds(1), seconds(100));
    early.Learn(seconds(100), milliseconds(1));
  }
  EXPECT_EQ(late.factor(), 4);
  EXPECT_EQ(early.factor(), 0.5);
}

TEST(WorkOfTest, OutputTokensCountByTheRatioOfRates) {
  EXPECT_EQ(WorkOf(&kLoad, 100, 10), 100 + 10 * 25);
  EXPECT_EQ(WorkOf(nullptr, 100, 10), 180) << "a guess before anything is measured";
  EXPECT_EQ(WorkOf(&kLoad, -5, -5), 0);
}

}  // namespace
}  // namespace sluice::qos
