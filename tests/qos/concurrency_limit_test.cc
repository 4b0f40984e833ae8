#include "qos/concurrency_limit.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;

// An engine under a demand that is always above its limit, unless `demand` is smaller. Up to `slots` sequences run, the
// rest waits for a share of an answer's length. A token takes `step` as long as at most `comfortable` run, above that
// longer by the square: it does not pay to run more.
struct Engine {
  int slots = 16, comfortable = 1000;
  Duration answer = std::chrono::seconds(1), step = milliseconds(10);
  int demand = 1'000'000;
  double noise = 0;  // share, of both signals, uniform
  std::mt19937_64* random = nullptr;

  CongestionSample At(int limit) const {
    const int running = std::min(limit, demand);
    const double over = std::max(1.0, static_cast<double>(running) / comfortable);
    return {.queue_wait = FromMillis(ToMillis(answer) * std::max(0, running - slots) / slots * Jitter()),
            .time_per_token = FromMillis(ToMillis(step) * over * over * Jitter()),
            .running = running};
  }
  double Jitter() const { return noise == 0 ? 1 : std::uniform_real_distribution<>(1 - noise, 1 + noise)(*random); }
};

std::vector<int> Simulate(ConcurrencyLimit& limit, const Engine& engine, int updates) {
  std::vector<int> limits;
  for (int i = 0; i < updates; ++i) limits.push_back(limit.Update(engine.At(limit.limit())));
  return limits;
}

int Max(const std::vector<int>& v, size_t from = 0) { return *std::max_element(v.begin() + from, v.end()); }
int Min(const std::vector<int>& v, size_t from = 0) { return *std::min_element(v.begin() + from, v.end()); }

// As Netflix has it, without queue wait: the yardstick.
int PlainGradient2(const Engine& engine, int updates) {
  double limit = 20, average = 0;
  for (int i = 0; i < updates; ++i) {
    const double now = ToMillis(engine.At(static_cast<int>(limit)).time_per_token);
    average = average == 0 ? now : average + 2.0 / 601 * (now - average);
    if (average > 2 * now) average *= 0.95;
    const double gradient = std::clamp(1.5 * average / now, 0.5, 1.0);
    limit = std::clamp(0.8 * limit + 0.2 * (limit * gradient + 4), 4.0, 100.0);
  }
  return static_cast<int>(limit);
}

TEST(ConcurrencyLimit, OverloadSettlesAtWhatTheEngineTakes) {
  ConcurrencyLimit limit({.initial = 100});
  const std::vector<int> limits = Simulate(limit, Engine{.slots = 16}, 2000);
  const auto settled = std::find_if(limits.begin(), limits.end(), [](int l) { return l <= 17; }) - limits.begin();
  std::printf("100 permits on 16 slots: settled after %ld updates, then %d..%d\n", static_cast<long>(settled),
              Min(limits, settled), Max(limits, settled));
  EXPECT_LE(settled, 20);
  EXPECT_LE(Max(limits, settled), 18);
  EXPECT_GE(Min(limits, settled), 14);
}

TEST(ConcurrencyLimit, GrowsToWhatTheEngineTakes) {
  ConcurrencyLimit limit({.initial = 4});
  const std::vector<int> limits = Simulate(limit, Engine{.slots = 64}, 200);
  EXPECT_GE(Min(limits, 100), 57) << "0.8 permits an update";
  EXPECT_LE(Max(limits), 66);
}

TEST(ConcurrencyLimit, LongAnswersDoNotLowerIt) {
  for (const auto answer : {milliseconds(100), milliseconds(600'000)}) {
    ConcurrencyLimit limit({.initial = 16, .ceiling = 16});
    EXPECT_EQ(Min(Simulate(limit, Engine{.slots = 16, .answer = answer}, 1000)), 16) << answer.count() << " ms";
  }
}

TEST(ConcurrencyLimit, ALastingOverloadDoesNotBecomeNormal) {
  const Engine engine{.slots = 1000, .comfortable = 16};
  ConcurrencyLimit limit({});
  const std::vector<int> limits = Simulate(limit, engine, 20'000);
  std::printf("engine slows down above 16: %d..%d after 20000 updates; Gradient2 without the differences: %d\n",
              Min(limits, 100), Max(limits, 100), PlainGradient2(engine, 20'000));
  EXPECT_LE(Max(limits, 100), 26) << "tolerance 1.5 allows sqrt(1.5) × 20, where it began";
  EXPECT_GE(Min(limits, 100), 12);
  EXPECT_EQ(PlainGradient2(engine, 20'000), 100) << "then the differences are no longer needed";
}

TEST(ConcurrencyLimit, AnEngineThatBecameSlowerForGoodIsFoundOut) {
  ConcurrencyLimit limit({.ceiling = 40});
  Engine engine{.slots = 40};
  Simulate(limit, engine, 500);
  ASSERT_EQ(limit.limit(), 40);
  engine.step *= 3;
  const std::vector<int> limits = Simulate(limit, engine, 100);
  EXPECT_EQ(Min(limits), 4);
  EXPECT_EQ(limits.back(), 40) << "it does the same with fewer as with more: back in 100 updates";
}

TEST(ConcurrencyLimit, AShortHiccupCostsLittle) {
  ConcurrencyLimit limit({.initial = 40, .ceiling = 40});
  Engine engine{.slots = 40};
  Simulate(limit, engine, 100);
  engine.step *= 10;
  EXPECT_GE(Simulate(limit, engine, 1).back(), 36) << "a sample weighs no more than smoothing / 2";
  engine.step /= 10;
  EXPECT_EQ(Simulate(limit, engine, 6).back(), 40);
}

TEST(ConcurrencyLimit, ProbeAndFloorAreApart) {
  for (const int floor : {1, 10}) {
    for (const int probe : {1, 20}) {
      ConcurrencyLimit limit({.initial = 50, .floor = floor, .ceiling = 200, .probe = probe, .smoothing = 1});
      EXPECT_EQ(limit.Update(Engine{.slots = 1000}.At(50)), 50 + probe) << floor;
      for (int i = 0; i < 100; ++i) limit.Update({.queue_wait = std::chrono::hours(1), .running = limit.limit()});
      EXPECT_EQ(limit.limit(), floor) << probe;
    }
  }
}

TEST(ConcurrencyLimit, DoesNotGrowWhileHalfOfItIsUnused) {
  ConcurrencyLimit limit({.initial = 40});
  EXPECT_EQ(Max(Simulate(limit, Engine{.slots = 1000, .demand = 19}, 100)), 40);
  EXPECT_EQ(Simulate(limit, Engine{.slots = 1000, .demand = 30}, 100).back(), 60) << "twice what is used, and rest";
}

TEST(ConcurrencyLimit, ANearlyEmptyEngineIsNoSignOfAnything) {
  ConcurrencyLimit limit({.initial = 40, .ceiling = 40});
  Simulate(limit, Engine{.slots = 40, .step = milliseconds(2)}, 100);
  EXPECT_EQ(Min(Simulate(limit, Engine{.slots = 40, .step = milliseconds(20), .demand = 1}, 1000)), 40)
      << "a stream alone takes longer for its token than one of many";
  EXPECT_EQ(limit.Update({}), 40) << "nothing ran";
  EXPECT_EQ(Min(Simulate(limit, Engine{.slots = 40, .step = milliseconds(2)}, 100)), 40) << "nothing wrong was learnt";
}

TEST(ConcurrencyLimit, NoiseDoesNotMoveIt) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    ConcurrencyLimit limit({.initial = 40, .ceiling = 40});
    EXPECT_GE(Min(Simulate(limit, Engine{.slots = 40, .noise = 0.2, .random = &random}, 20'000), 10), 38)
        << "20 % either way stay within the tolerance";
  }
}

TEST(ConcurrencyLimit, AnySamplesKeepItBetweenFloorAndCeiling) {
  constexpr uint64_t kSeed = 4711;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  const auto any_duration = [&]() -> Duration {
    switch (random() % 5) {
      case 0:
        return Duration::zero();
      case 1:
        return Duration(1);
      case 2:
        return Duration::max();
      case 3:
        return Duration(-static_cast<int64_t>(random() % 1'000'000));
      default:
        return Duration(static_cast<int64_t>(random() % 1'000'000'000));
    }
  };
  ConcurrencyLimit limit({.initial = 7, .floor = 3, .ceiling = 50});
  for (int i = 0; i < 100'000; ++i) {
    const int before = limit.limit();
    const int running = static_cast<int>(random() % 120) - 10;
    const int after = limit.Update({any_duration(), any_duration(), running});
    ASSERT_EQ(after, limit.limit());
    ASSERT_GE(after, 3);
    ASSERT_LE(after, 50);
    ASSERT_LE(after, before + 1) << "0.2 of a probe of 4";
    ASSERT_GE(after, before * 0.9 - 1);
    if (running * 2 < before) {
      ASSERT_LE(after, before);
    }
  }
  Simulate(limit, Engine{.slots = 1000}, 200);
  EXPECT_EQ(limit.limit(), 50) << "whatever it saw, it recovers";
}

TEST(ConcurrencyLimit, SwitchedOffItIsTheCeiling) {
  ConcurrencyLimit limit({.enabled = false, .initial = 5, .ceiling = 100});
  EXPECT_EQ(limit.limit(), 100);
  EXPECT_EQ(Min(Simulate(limit, Engine{.slots = 1}, 100)), 100);
}

}  // namespace
}  // namespace sluice::qos
