#include "qos/policy_objective.h"

#include "gtest/gtest.h"
#include "tests/qos/policy_test_support.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kMargin = 0.1;

// One objective and what it has seen.
struct Judged {
  explicit Judged(Objective o) : objective(std::move(o)) {}
  void See(RequestOutcome outcome, int times = 1) {
    for (int i = 0; i < times; ++i) AddTo(objective, NumbersOf(outcome), window.At(now));
  }
  ObjectiveReading Read(const SystemState& state = {}) const { return ReadObjective(objective, window, state, now); }
  Verdict Say(const SystemState& state = {}) const {
    return JudgeObjective(objective, Read(state), kMargin, state.queued != 0);
  }

  Objective objective;
  MonoTime now{seconds(1000)};
  ObjectiveWindow window{objective.window, MonoTime(seconds(900))};  // 100 s of it are known
};

TEST(PolicyObjective, NothingIsMetOrViolatedWithoutData) {
  for (const Objective& objective :
       {AtMost("ttft_p95_ms", 0), AtMost("error_rate_percent", 0), AtLeast("requests_per_s", 1000),
        AtLeast("output_tokens_per_s", 1000), AtMost("cpu_percent", 0), AtMost("kv_usage_percent", 0),
        AtMost("memory_percent", 0), AtMost("queued_requests", 0), AtLeast("running_requests", 1)}) {
    EXPECT_EQ(Judged(objective).Say(), Verdict::kUnknown) << objective.metric;
  }
}

TEST(PolicyObjective, TooFewSamplesAreUnknown) {
  Judged judged(AtMost("ttft_p95_ms", 100, 30));
  judged.See({.ttft = seconds(10)}, 29);
  EXPECT_EQ(judged.Say(), Verdict::kUnknown);
  EXPECT_EQ(judged.Read().samples, 29);
  judged.See({.ttft = seconds(10)});
  EXPECT_EQ(judged.Say(), Verdict::kViolated);
}

TEST(PolicyObjective, SamplesAreJudgedByTheirQuantile) {
  Judged judged(AtMost("ttft_p90_ms", 100));
  judged.See({.ttft = milliseconds(50)}, 91);
  judged.See({.ttft = seconds(9)}, 9);
  EXPECT_NEAR(*judged.Read().value, 50, 0.5);
  EXPECT_EQ(judged.Say(), Verdict::kRecovered);
  judged.See({.ttft = seconds(9)}, 5);
  EXPECT_NEAR(*judged.Read().value, 9000, 90);
  EXPECT_EQ(judged.Say(), Verdict::kViolated);
}

TEST(PolicyObjective, EachSampleHasItsSignal) {
  const RequestOutcome outcome{
      .ttft = milliseconds(10), .tpot = milliseconds(20), .latency = milliseconds(30), .queue_wait = milliseconds(40)};
  const std::pair<const char*, double> expected[] = {
      {"ttft_p50_ms", 10}, {"tpot_p50_ms", 20}, {"latency_p50_ms", 30}, {"queue_wait_p50_ms", 40}};
  for (const auto& [metric, value] : expected) {
    Judged judged(AtMost(metric, 1));
    judged.See(outcome);
    judged.See({});  // has none of them: no sample
    EXPECT_NEAR(*judged.Read().value, value, value * 0.01) << metric;
    EXPECT_EQ(judged.Read().samples, 1) << metric;
  }
}

TEST(PolicyObjective, BetweenThresholdAndMarginItIsHeld) {
  Judged judged(AtMost("queued_requests", 100));
  EXPECT_EQ(judged.Say({.queued = 100.5}), Verdict::kViolated);
  EXPECT_EQ(judged.Say({.queued = 100}), Verdict::kHeld) << "at most includes the threshold";
  EXPECT_EQ(judged.Say({.queued = 90.5}), Verdict::kHeld);
  EXPECT_EQ(judged.Say({.queued = 90}), Verdict::kRecovered);
}

TEST(PolicyObjective, ErrorsOfClientsAndCancelsCountForNeither) {
  Judged judged(AtMost("error_rate_percent", 1));
  judged.See({}, 98);
  judged.See({.failed = true}, 2);
  judged.See({.counts = false, .failed = true}, 1000);
  EXPECT_DOUBLE_EQ(*judged.Read().value, 2.0) << "in percent, as the name says";
  EXPECT_EQ(judged.Read().samples, 100);
  EXPECT_EQ(judged.Say(), Verdict::kViolated);
}

// Ancestor defect e: a minimum was compared as a maximum, and counted samples instead of tokens.
TEST(PolicyObjective, AMinimumIsMissedFromBelow) {
  Judged judged(AtLeast("output_tokens_per_s", 50));
  judged.See({.output_tokens = 50}, 100);
  const double covered = ToSeconds(judged.window.Covered(judged.now));
  EXPECT_DOUBLE_EQ(*judged.Read().value, 5000 / covered);
  EXPECT_EQ(judged.Say(), Verdict::kRecovered) << "90 tokens/s are more than 50";
  Judged slow(AtLeast("output_tokens_per_s", 50));
  slow.See({.output_tokens = 20}, 100);
  EXPECT_EQ(slow.Say(), Verdict::kViolated) << "36 tokens/s are less than 50";
  EXPECT_EQ(Judged(AtLeast("running_requests", 75)).Say({.running = 74}), Verdict::kViolated);
  EXPECT_EQ(Judged(AtLeast("running_requests", 75)).Say({.running = 76}), Verdict::kHeld);
  EXPECT_EQ(Judged(AtLeast("running_requests", 75)).Say({.running = 83}), Verdict::kRecovered);
}

TEST(PolicyObjective, AMinimumIsMissedOnlyWhileSomebodyWaits) {
  Judged judged(AtLeast("requests_per_s", 100));
  judged.See({}, 30);
  EXPECT_EQ(judged.Say({.queued = 0}), Verdict::kUnknown) << "nobody asked for more";
  EXPECT_EQ(judged.Say({.queued = 1}), Verdict::kViolated);
  EXPECT_EQ(judged.Say({.queued = -1}), Verdict::kViolated) << "not known whether somebody waits";
}

TEST(PolicyObjective, RatesCountWhatSucceededAndAllTokens) {
  Judged requests(AtLeast("requests_per_s", 1));
  requests.See({}, 60);
  requests.See({.failed = true}, 60);
  requests.See({.counts = false}, 60);
  EXPECT_DOUBLE_EQ(*requests.Read().value, 60 / ToSeconds(requests.window.Covered(requests.now)));
  Judged tokens(AtLeast("output_tokens_per_s", 1));
  tokens.See({.output_tokens = 10}, 6);
  tokens.See({.counts = false, .output_tokens = 10}, 6);
  EXPECT_DOUBLE_EQ(*tokens.Read().value, 120 / ToSeconds(tokens.window.Covered(tokens.now)));
  EXPECT_EQ(tokens.Read().samples, 6);
}

TEST(PolicyObjective, ARateNeedsHalfItsWindow) {
  Judged judged(AtLeast("requests_per_s", 1000));
  judged.window = ObjectiveWindow(seconds(60), judged.now);
  judged.See({}, 500);
  judged.now += milliseconds(29'999);
  EXPECT_EQ(judged.Say(), Verdict::kUnknown);
  judged.now += milliseconds(1);
  EXPECT_EQ(judged.Say(), Verdict::kViolated);
}

TEST(PolicyObjective, LevelsAreThoseOfTheProcessInPercent) {
  const SystemState state{.running = 3, .queued = 4, .kv_usage = 0.5, .memory = 0.25, .cpu = 0.75};
  const std::pair<const char*, double> expected[] = {{"running_requests", 3},
                                                     {"queued_requests", 4},
                                                     {"kv_usage_percent", 50},
                                                     {"memory_percent", 25},
                                                     {"cpu_percent", 75}};
  for (const auto& [metric, value] : expected) EXPECT_EQ(*Judged(AtMost(metric, 1)).Read(state).value, value) << metric;
}

TEST(PolicyObjective, Together) {
  using enum Verdict;
  EXPECT_EQ(Together({kRecovered, kViolated, kUnknown}), kViolated);
  EXPECT_EQ(Together({kRecovered, kHeld, kUnknown}), kUnknown);
  EXPECT_EQ(Together({kRecovered, kHeld}), kHeld);
  EXPECT_EQ(Together({kRecovered, kRecovered}), kRecovered);
}

}  // namespace
}  // namespace sluice::qos
