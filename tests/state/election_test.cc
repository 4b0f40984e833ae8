#include "state/election.h"

#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/state/sim_cluster.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_store.h"
#include "tests/support/status_matchers.h"

namespace sluice::state {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::IsOk;

constexpr MonoTime kNow{seconds(100)};

TEST(NextStepTest, OneThingAfterTheOther) {
  ElectionView view;
  EXPECT_EQ(NextStep(view, kNow), ElectionStep::kBeginSession);
  view.session = "s";
  view.alive_until = kNow + seconds(5);
  EXPECT_EQ(NextStep(view, kNow), ElectionStep::kNothing) << "who holds the key is not known yet";
  view.known = true;
  EXPECT_EQ(NextStep(view, kNow), ElectionStep::kCampaign);
  view.holder = Entry{"leader", "somebody", 7, "other"};
  EXPECT_EQ(NextStep(view, kNow), ElectionStep::kNothing);
  EXPECT_EQ(NextStep(view, kNow + seconds(5)), ElectionStep::kBeginSession) << "ours is over";
  view.holder.reset();
  view.try_again = kNow + milliseconds(1);
  EXPECT_EQ(NextStep(view, kNow), ElectionStep::kNothing);
}

TEST(LeadingTest, AsLongAsOurSessionSurelyHoldsTheKey) {
  ElectionView view{.holder = Entry{"leader", "me", 7, "s"}, .session = "s", .alive_until = kNow + seconds(5)};
  EXPECT_EQ(Leading(view, seconds(1), kNow), (Fence{"leader", 7}));
  EXPECT_EQ(Leading(view, seconds(1), kNow + milliseconds(3999)), (Fence{"leader", 7}));
  EXPECT_EQ(Leading(view, seconds(1), kNow + seconds(4)), std::nullopt);
  EXPECT_EQ(Leading(view, seconds(1), kNow + seconds(9)), std::nullopt);
  view.alive_until = kInfiniteFuture;
  EXPECT_EQ(Leading(view, seconds(1), kNow), (Fence{"leader", 7}));
  view.holder->session = "older";
  EXPECT_EQ(Leading(view, seconds(1), kNow), std::nullopt);
  view.holder.reset();
  EXPECT_EQ(Leading(view, seconds(1), kNow), std::nullopt);
}

// One replica of a store in memory.
struct Candidate {
  Candidate(test::MemoryStore& store, const std::string& name, const Clock& clock)
      : election(store,
                 {.key = "leader",
                  .name = name,
                  .changed =
                      [this](const auto& ours, const auto& leader) {
                        told.push_back((ours ? "lead" : "follow ") + (ours ? "" : leader));
                      }},
                 clock) {}
  std::vector<std::string> told;
  Election election;
};

// Watches of the store in memory are told on its thread.
void TickUntil(Candidate& candidate, test::ManualClock& clock, const std::function<bool()>& done) {
  for (int i = 0; i < 1'000'000 && !done(); ++i) {
    candidate.election.Tick();
    clock.Advance(milliseconds(1));
  }
  ASSERT_TRUE(done());
}

TEST(ElectionTest, TheNextOneLeadsWhenTheFirstGoesOrIsLost) {
  test::MemoryStore store;
  test::ManualClock clock;
  auto one = std::make_unique<Candidate>(store, "one", clock);
  TickUntil(*one, clock, [&] { return one->election.leader().has_value(); });
  EXPECT_EQ(one->election.leader_name(), "one");
  EXPECT_EQ(one->election.leader()->revision, store.Get("leader")->revision);

  Candidate two(store, "two", clock);
  TickUntil(two, clock, [&] { return two.election.leader_name() == "one"; });
  EXPECT_EQ(two.election.leader(), std::nullopt);
  EXPECT_THAT(store.Put("x", "1", 0, {.fence = one->election.leader()}), IsOk());
  one.reset();
  TickUntil(two, clock, [&] { return two.election.leader().has_value(); });
  two.election.Tick();
  EXPECT_EQ(two.told.back(), "lead");

  store.LoseSessionOf("leader");
  EXPECT_EQ(two.election.leader(), std::nullopt) << "at once, before any news";
  TickUntil(two, clock, [&] { return two.election.leader().has_value(); });
}

TEST(ElectionTest, AStoreOutOfReachIsTriedAgainAtItsPace) {
  test::MemoryStore store;
  test::ManualClock clock;
  store.SetFault(absl::UnavailableError("away"));
  int wakes = 0;
  Election election(store, {.key = "leader", .name = "one", .wake = [&wakes] { ++wakes; }}, clock);
  EXPECT_EQ(wakes, 1);
  for (int i = 0; i < 10; ++i) election.Tick();
  EXPECT_EQ(election.leader(), std::nullopt);
  store.SetFault(absl::OkStatus());
  election.Tick();  // too soon
  for (int i = 0; i < 1'000'000 && !election.leader(); ++i) {
    clock.Advance(milliseconds(10));
    election.Tick();
  }
  EXPECT_TRUE(election.leader().has_value());
}

struct History {
  int overlaps = 0, terms = 0, writes = 0;
  bool fences_rise = true;
  int leaders_at_end = 0;
};

// Four replicas for some minutes: cut off, asleep, told late, answers lost, clocks that go wrong by `skew`.
History Play(uint32_t seed, double skew, Duration margin) {
  std::mt19937 random(seed);
  const auto chance = [&](double p) { return std::bernoulli_distribution(p)(random); };
  SimCluster cluster;
  std::vector<std::unique_ptr<SimClient>> clients;
  std::vector<std::unique_ptr<Election>> elections;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<SimClient>(cluster, 1 + skew * (i % 2 == 0 ? -1 : 1)));
    clients.back()->answer_lost = [&] { return chance(0.1); };
    elections.push_back(std::make_unique<Election>(
        *clients.back(), Election::Options{.key = "leader", .name = std::to_string(i), .margin = margin},
        clients.back()->clock()));
  }
  History history;
  uint64_t last_fence = 0;
  std::vector<int> asleep(clients.size());
  constexpr int kSteps = 3000;
  for (int step = 0; step < kSteps; ++step) {
    const bool calm = step > kSteps * 9 / 10;
    const Duration passed = milliseconds(std::uniform_int_distribution<int>(10, 200)(random));
    cluster.Advance(passed);
    int leaders = 0;
    for (size_t i = 0; i < clients.size(); ++i) {
      clients[i]->Advance(passed);
      if (chance(0.01)) clients[i]->cut = !clients[i]->cut;
      if (chance(0.003)) asleep[i] = std::uniform_int_distribution<int>(1, 200)(random);
      if (calm) asleep[i] = 0, clients[i]->cut = false;
      if (--asleep[i] < 0) {
        clients[i]->Pump(/*news=*/chance(0.5));
        elections[i]->Tick();
      }
      leaders += elections[i]->leader() ? 1 : 0;
    }
    history.overlaps += leaders > 1 ? 1 : 0;
    for (size_t i = 0; i < clients.size(); ++i) {
      const std::optional<Fence> fence = elections[i]->leader();
      const auto decided = clients[i]->Get("decided");
      if (!fence || clients[i]->cut) continue;
      const uint64_t before = decided.ok() ? decided->revision : 0;
      if (!clients[i]->Put("decided", std::to_string(i), before, {.fence = fence}).ok()) continue;
      ++history.writes;
      history.terms += fence->revision != last_fence ? 1 : 0;
      history.fences_rise = history.fences_rise && fence->revision >= last_fence;
      last_fence = fence->revision;
    }
    history.leaders_at_end = leaders;
  }
  return history;
}

TEST(ElectionHistoriesTest, LeadersNeverOverlap) {
  int terms = 0, writes = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    const History history = Play(seed, /*skew=*/0.02, milliseconds(500));
    EXPECT_EQ(history.overlaps, 0) << "seed " << seed;
    EXPECT_TRUE(history.fences_rise) << "seed " << seed;
    EXPECT_EQ(history.leaders_at_end, 1) << "seed " << seed;
    terms += history.terms;
    writes += history.writes;
  }
  std::cout << terms << " terms, " << writes << " fenced writes\n";
  EXPECT_GT(terms, 500);
}

// What the histories can find: a clock that is far too slow and no margin. Even then no late write gets through.
TEST(ElectionHistoriesTest, FencesHoldWhereClocksDoNot) {
  int overlaps = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    const History history = Play(seed, /*skew=*/0.3, milliseconds(0));
    overlaps += history.overlaps;
    EXPECT_TRUE(history.fences_rise) << "seed " << seed;
  }
  EXPECT_GT(overlaps, 0);
}

}  // namespace
}  // namespace sluice::state
