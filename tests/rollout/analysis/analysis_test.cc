#include "rollout/analysis/analysis.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace sluice::rollout {
namespace {

constexpr uint32_t kSeed = 20261123;

// Traffic of one replica, window after window.
struct Traffic {
  std::mt19937_64 random{kSeed};
  uint32_t bps = 1'000;
  int per_window = 500;
  double base_error = 0.005, error_ratio = 1, median_ms = 100, sigma = 0.6, scale = 1;
  int64_t index = 1'000;
  double canary_bytes = 1e8, baseline_bytes = 9e8;

  Window Next() {
    Window window{
        .attempt = "f#1", .replica = "a", .index = index++, .length = std::chrono::seconds(10), .canary_bps = bps};
    std::lognormal_distribution<double> latency(std::log(median_ms), sigma);
    std::uniform_real_distribution<double> unit;
    for (int i = 0; i < per_window; ++i) {
      const bool in = unit(random) < bps / 10'000.0;
      ArmWindow& arm = window.arms[in ? 1 : 0];
      ++arm.requests;
      ++arm.events;
      ++arm.first_users;
      if (unit(random) < base_error * (in ? error_ratio : 1)) {
        ++arm.failures;
        continue;
      }
      const double ms = latency(random) * (in ? scale : 1);
      arm.ttft_ms[1].Add(ms);
      arm.latency_ms[1].Add(ms * 4);
    }
    window.arms[0].memory_bytes = baseline_bytes;
    window.arms[1].memory_bytes = canary_bytes;
    return window;
  }
};

const Check& Find(const Judgement& judgement, std::string_view name) {
  return *std::find_if(judgement.checks.begin(), judgement.checks.end(),
                       [&](const Check& c) { return c.name == name; });
}

Judgement After(Traffic& traffic, Analysis& analysis, int windows) {
  for (int i = 0; i < windows; ++i) analysis.Add(std::array{traffic.Next()});
  return analysis.Judge();
}

TEST(Analysis, ACanaryThatIsNotWorsePassesAfterEnoughEvidenceAndNotBefore) {
  Traffic traffic;
  traffic.base_error = 0.002;
  Analysis analysis{{}};
  analysis.OnStage(1'000);
  EXPECT_EQ(analysis.Judge().verdict, Verdict::kInconclusive) << "nothing was seen";
  EXPECT_EQ(After(traffic, analysis, 1).verdict, Verdict::kInconclusive);
  const Judgement later = After(traffic, analysis, 40);
  EXPECT_EQ(later.verdict, Verdict::kPass) << later.cause;
  analysis.OnStage(5'000);
  EXPECT_EQ(analysis.Judge().verdict, Verdict::kInconclusive) << "a new stage shows it anew";
}

TEST(Analysis, MoreErrorsFailAndTheCauseSaysSo) {
  Traffic traffic;
  traffic.error_ratio = 10;
  Analysis analysis{{}};
  const Judgement judgement = After(traffic, analysis, 60);
  EXPECT_EQ(judgement.verdict, Verdict::kFail);
  EXPECT_NE(judgement.cause.find("error_rate: "), std::string::npos) << judgement.cause;
  const Check& check = Find(judgement, "error_rate");
  EXPECT_GT(check.ratio, 5);
  EXPECT_LT(check.low, check.ratio);
  EXPECT_GT(check.high, check.ratio);
  EXPECT_EQ(Find(judgement, "ttft_p95").verdict, Verdict::kPass);
}

TEST(Analysis, SignificantIsNotEnoughItMustBeLargeToo) {
  Traffic traffic;
  traffic.base_error = 0.05;
  traffic.error_ratio = 1.6;
  traffic.bps = 5'000;
  Analysis analysis{{}};
  const Judgement judgement = After(traffic, analysis, 200);
  const Check& check = Find(judgement, "error_rate");
  EXPECT_GE(check.e_value, check.e_limit) << "it is worse beyond doubt";
  EXPECT_NE(check.verdict, Verdict::kFail) << "but by less than the limit of 2";
}

TEST(Analysis, ASlowerTailFails) {
  Traffic traffic;
  traffic.scale = 2;
  Analysis analysis{{}};
  const Judgement judgement = After(traffic, analysis, 40);
  EXPECT_EQ(judgement.verdict, Verdict::kFail);
  EXPECT_EQ(Find(judgement, "ttft_p95").verdict, Verdict::kFail) << judgement.cause;
  EXPECT_NEAR(Find(judgement, "ttft_p95").ratio, 2, 0.4);
  EXPECT_LT(Find(judgement, "ttft_p95").low, 2);
  EXPECT_GT(Find(judgement, "ttft_p95").low, 1);
  EXPECT_GT(Find(judgement, "ttft_p95").high, 2);
  EXPECT_LT(Find(judgement, "ttft_p95").high, 4);
  traffic = {};
  traffic.scale = 1.3;
  Analysis mild{{}};
  EXPECT_NE(After(traffic, mild, 100).verdict, Verdict::kFail) << "1.3 is below the limit of 1.5";
}

// Strata: the canary gets the same prompts, so a drift in their lengths is no difference of the arms.
TEST(Analysis, EmptyMixedAndMissingWindowsDecideNothing) {
  Analysis analysis{{}};
  for (int i = 0; i < 50; ++i) {
    Window empty{.attempt = "f#1", .replica = "a", .index = i, .length = std::chrono::seconds(10), .canary_bps = 100};
    analysis.Add(std::array{empty});
    empty.mixed = true;
    empty.arms[1] = {.requests = 100, .events = 100, .failures = 100};
    empty.arms[0] = {.requests = 100, .events = 100};
    analysis.Add(std::array{empty});
  }
  analysis.Add({});
  EXPECT_EQ(analysis.Judge().verdict, Verdict::kInconclusive);
}

TEST(Analysis, TwoCrashesInTenMinutesFailAndOneDoesNot) {
  Traffic traffic;
  traffic.per_window = 20'000;
  Analysis analysis{{}};
  Window crashed = traffic.Next();
  crashed.arms[1].crashes = 1;
  crashed.mixed = true;
  analysis.Add(std::array{crashed});
  EXPECT_EQ(Find(After(traffic, analysis, 61), "crash_rate").verdict, Verdict::kPass);
  crashed.index = traffic.index++;
  analysis.Add(std::array{crashed});
  EXPECT_NE(analysis.Judge().verdict, Verdict::kFail) << "more than ten minutes later";
  crashed.index = traffic.index++;
  analysis.Add(std::array{crashed});
  EXPECT_EQ(analysis.Judge().verdict, Verdict::kFail);
  EXPECT_NE(analysis.Judge().cause.find("crash_rate"), std::string::npos);
}

TEST(Analysis, GrowthOfTheCanarysBytesFailsAndGrowthOfBothIsLoad) {
  AnalysisOptions options;
  options.memory_span = std::chrono::minutes(10);
  for (const bool both : {false, true}) {
    Traffic traffic;
    Analysis analysis(options);
    std::normal_distribution<double> noise(0, 2e6);
    for (int i = 0; i < 120; ++i) {
      traffic.canary_bytes = 1e8 + 1e6 * i + noise(traffic.random);
      traffic.baseline_bytes = 9e8 * (both ? 1 + 0.011 * i : 1);
      analysis.Add(std::array{traffic.Next()});
    }
    const Check check = Find(analysis.Judge(), "memory_growth");
    EXPECT_EQ(check.verdict, both ? Verdict::kPass : Verdict::kFail) << check.canary << " against " << check.baseline;
    EXPECT_NEAR(check.canary, 360 / 160.0, 0.3) << "per hour, of the median";
  }
}

TEST(Analysis, SharesThatAreOffHoldAndDoNotFail) {
  Traffic traffic;
  Analysis analysis{{}};
  for (int i = 0; i < 40; ++i) {
    Window window = traffic.Next();
    window.canary_bps = 2'000;  // it said 20 %, and 10 % came
    analysis.Add(std::array{window});
  }
  const Judgement judgement = analysis.Judge();
  EXPECT_NE(judgement.verdict, Verdict::kFail);
  EXPECT_NE(judgement.hold.find("sample_ratio"), std::string::npos);
  Traffic right;
  Analysis other{{}};
  EXPECT_EQ(After(right, other, 200).hold, "");
}

TEST(Analysis, WithoutABaselineErrorsAreHeldAgainstTheAllowedRate) {
  Traffic traffic;
  traffic.bps = 10'000;
  Analysis good{{}};
  good.OnStage(10'000);
  traffic.base_error = 0.001;
  EXPECT_EQ(After(traffic, good, 30).verdict, Verdict::kPass);
  Analysis bad{{}};
  bad.OnStage(10'000);
  traffic.base_error = 0.05;
  EXPECT_EQ(After(traffic, bad, 30).verdict, Verdict::kFail);
}

TEST(Analysis, ThresholdModeTakesTheRatiosAsTheyAre) {
  AnalysisOptions options;
  options.mode = Mode::kThreshold;
  Traffic traffic;
  traffic.base_error = 0.05;
  traffic.error_ratio = 3;
  Analysis analysis(options);
  EXPECT_EQ(After(traffic, analysis, 1).verdict, Verdict::kInconclusive) << "50 of the canary are too few";
  EXPECT_EQ(After(traffic, analysis, 5).verdict, Verdict::kFail);
  traffic = {};
  traffic.base_error = 0.05;
  Analysis same(options);
  EXPECT_EQ(After(traffic, same, 50).verdict, Verdict::kPass);
}

TEST(Analysis, AnotherLeaderGoesOnWithTheSameEvidence) {
  Traffic traffic;
  traffic.error_ratio = 4;
  Analysis analysis{{}};
  analysis.OnStage(1'000);
  After(traffic, analysis, 10);
  auto other = Analysis::Decode({}, analysis.Encode());
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->Encode(), analysis.Encode());
  EXPECT_DOUBLE_EQ(Find(other->Judge(), "error_rate").e_value, Find(analysis.Judge(), "error_rate").e_value);
  for (int i = 0; i < 60; ++i) {
    const Window window = traffic.Next();
    analysis.Add(std::array{window});
    other->Add(std::array{window});
  }
  EXPECT_DOUBLE_EQ(Find(other->Judge(), "error_rate").e_value, Find(analysis.Judge(), "error_rate").e_value);
  for (const char* bad : {"", "{}", "[1]", "{\"bps\": -1}"}) EXPECT_FALSE(Analysis::Decode({}, bad).ok()) << bad;
}

// The promise itself, on the code that decides: 300 rollouts that are not worse, looked at after each of 100 windows.
TEST(Analysis, FalseAlarmsStayBelowAlpha) {
  AnalysisOptions options;
  options.alpha = 0.05;
  for (const uint32_t bps : {100u, 1'000u, 5'000u}) {
    int alarms = 0;
    constexpr int kTrials = 100;
    for (int trial = 0; trial < kTrials; ++trial) {
      Traffic traffic;
      traffic.random.seed(kSeed + static_cast<uint64_t>(trial) * 31 + bps);
      traffic.bps = bps;
      traffic.per_window = 200;
      traffic.base_error = 0.02;
      Analysis analysis(options);
      bool alarm = false;
      for (int i = 0; i < 100 && !alarm; ++i) {
        analysis.Add(std::array{traffic.Next()});
        alarm = analysis.Judge().verdict == Verdict::kFail;
      }
      alarms += alarm;
    }
    EXPECT_LE(alarms, 11) << "of " << kTrials << " at " << bps << " bps, seed " << kSeed
                          << "; more than 11 have a chance of 1 in 200 at a rate of 5 %";
  }
}

}  // namespace
}  // namespace sluice::rollout
