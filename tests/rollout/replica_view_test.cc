#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "rollout/rollout_state.h"

namespace sluice::rollout {
namespace {

RolloutState At(uint64_t epoch, uint64_t attempt, uint32_t bps) {
  return {.flag = "f", .epoch = epoch, .attempt = attempt, .bps = bps};
}

TEST(ReplicaView, TheHigherEpochWinsWholeAndAtEqualEpochTheLowerPercentage) {
  ReplicaView view;
  EXPECT_EQ(view.bps(), 0u);
  EXPECT_TRUE(view.Absorb(At(2, 1, 1'000)));
  EXPECT_FALSE(view.Absorb(At(1, 1, 100))) << "older";
  EXPECT_FALSE(view.Absorb(At(2, 1, 1'000))) << "the same";
  EXPECT_FALSE(view.Absorb(At(2, 1, 2'000)));
  EXPECT_TRUE(view.Absorb(At(2, 1, 500)));
  EXPECT_TRUE(view.Absorb(At(3, 1, 5'000)));
  EXPECT_EQ(view.bps(), 5'000u);
}

TEST(ReplicaView, ATripHoldsItsAttemptAtZeroInEveryEpochUntilANewAttempt) {
  ReplicaView view;
  view.Absorb(At(2, 1, 1'000));
  EXPECT_TRUE(view.Trip(1));
  EXPECT_FALSE(view.Trip(1));
  EXPECT_EQ(view.bps(), 0u);
  view.Absorb(At(9, 1, 5'000));
  EXPECT_EQ(view.bps(), 0u);
  view.Absorb(At(10, 2, 100));
  EXPECT_EQ(view.bps(), 100u);
  EXPECT_FALSE(view.Trip(1)) << "of an attempt that is over";
  EXPECT_TRUE(view.Trip(3)) << "news of an attempt whose state has not come yet";
  view.Absorb(At(11, 3, 100));
  EXPECT_EQ(view.bps(), 0u);
}

// What any order, loss and repetition of the news leads to, against the rule itself.
TEST(ReplicaView, RandomHistoriesNeverServeMoreThanTheRule) {
  constexpr uint32_t seed = 20261123;
  std::mt19937 random(seed);
  const auto pick = [&random](uint32_t n) { return random() % n; };
  for (int history = 0; history < 400; ++history) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << " history " << history);
    std::vector<RolloutState> told;
    uint64_t attempt = 1;
    for (uint64_t epoch = 1; epoch <= 30; ++epoch) {
      if (pick(6) == 0) ++attempt;
      told.push_back(At(epoch, attempt, pick(10'001)));
      if (pick(5) == 0) told.push_back(At(epoch, attempt, pick(10'001)));
    }
    std::vector<ReplicaView> replicas(3);
    struct Heard {
      RolloutState best;
      std::set<uint64_t> trips;
    };
    std::vector<Heard> heard(replicas.size());
    for (int step = 0; step < 200; ++step) {
      const size_t r = pick(3);
      if (pick(4) == 0) {
        const uint64_t trip = 1 + pick(static_cast<uint32_t>(attempt));
        replicas[r].Trip(trip);
        heard[r].trips.insert(trip);
      } else if (pick(5) == 0) {
        const size_t other = pick(3);
        replicas[r].Merge(replicas[other]);
        heard[r].trips.insert(heard[other].trips.begin(), heard[other].trips.end());
        const RolloutState& s = heard[other].best;
        if (s.epoch > heard[r].best.epoch || (s.epoch == heard[r].best.epoch && s.bps < heard[r].best.bps)) {
          heard[r].best = s;
        }
      } else {
        const RolloutState& s = told[pick(static_cast<uint32_t>(told.size()))];
        replicas[r].Absorb(s);
        if (s.epoch > heard[r].best.epoch || (s.epoch == heard[r].best.epoch && s.bps < heard[r].best.bps)) {
          heard[r].best = s;
        }
      }
      const uint32_t allowed = heard[r].trips.contains(heard[r].best.attempt) ? 0 : heard[r].best.bps;
      ASSERT_EQ(replicas[r].bps(), allowed);
    }
    ReplicaView ab = replicas[0], ba = replicas[1];  // commutative, associative, idempotent
    ab.Merge(replicas[1]);
    ba.Merge(replicas[0]);
    ASSERT_EQ(ab, ba);
    ReplicaView left = ab, right = replicas[1];
    left.Merge(replicas[2]);
    right.Merge(replicas[2]);
    ReplicaView whole = replicas[0];
    whole.Merge(right);
    ASSERT_EQ(left, whole);
    left.Merge(whole);
    ASSERT_EQ(left, whole);
  }
}

}  // namespace
}  // namespace sluice::rollout
