// Several replicas around one store, in one thread and with time moved by hand: the whole of a rollout but for its
// requests, which are drawn.
#include "rollout/rollouts.h"

#include <cmath>
#include <random>

#include "base/status.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/rollout/sim_store.h"
#include "tests/support/manual_clock.h"

namespace sluice::rollout {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kSeed = 20261123;
constexpr Duration kWindow = seconds(1);
constexpr Duration kStep = milliseconds(250);

RolloutSpec Spec() {
  RolloutSpec spec{.flag = "ttft_pipeline", .cool_down = seconds(30)};
  for (Stage& stage : spec.stages) stage.dwell = seconds(10);
  for (Stage& stage : spec.stages) stage.min_samples = 100;
  return spec;
}

// A wall clock of a replica's own, which may be off and may jump.
class ReplicaClock final : public Clock {
 public:
  explicit ReplicaClock(const Clock& base) : base_(base) {}
  MonoTime Now() const override { return base_.Now(); }
  WallTime WallNow() const override { return base_.WallNow() + off; }
  Duration off{};

 private:
  const Clock& base_;
};

struct Behaviour {
  double error_rate = 0.002, canary_error_rate = 0.002, canary_slowness = 1;
  int requests = 60;  // of a replica in a step
};

class SimReplica {
 public:
  SimReplica(SimStore& store, const Clock& base, std::string name)
      : clock(base),
        connection(store.Connect()),
        name_(std::move(name)),
        election_(*connection, {.key = "rollouts/leader", .name = name_}, clock) {
    Restart();
  }
  void Restart() {
    rollouts = std::make_unique<Rollouts>(
        Rollouts::Parts{.store = *connection,
                        .election = election_,
                        .clock = clock,
                        .replica = name_,
                        .recorder = [this](std::string_view) { return &recorder_; },
                        .serve = [this](const std::string&, const Serving& s) { serving = s; },
                        .broken = [this](const std::string&) { return broken; },
                        .rss_bytes = [] { return 0.0; },
                        .told = [this](const std::string&, const Transition& t) { told.push_back(t); },
                        .wake = nullptr});
    rollouts->Configure({Spec()}, kWindow);
  }

  void Serve(std::mt19937_64& random, const Behaviour& behaviour) {
    std::uniform_real_distribution<double> unit;
    std::lognormal_distribution<double> latency(std::log(100.0), 0.4);
    for (int i = 0; i < behaviour.requests; ++i) {
      const bool in = unit(random) < serving.bps / 10'000.0;
      const bool failed = unit(random) < (in ? behaviour.canary_error_rate : behaviour.error_rate);
      const Duration ttft = FromMillis(latency(random) * (in ? behaviour.canary_slowness : 1));
      recorder_.Record({.arm = in ? Arm::kCanary : Arm::kBaseline,
                        .failed = failed,
                        .user = random(),
                        .prompt_tokens = 100,
                        .ttft = ttft,
                        .latency = ttft * 3,
                        .request_id = "r"});
      canary_requests += in;
    }
  }

  ReplicaClock clock;
  const std::unique_ptr<SimStore::Connection> connection;
  std::unique_ptr<Rollouts> rollouts;
  Serving serving;
  std::string broken;
  std::vector<Transition> told;
  int canary_requests = 0;
  const std::string& name() const { return name_; }

 private:
  const std::string name_;
  state::Election election_;
  ArmRecorder recorder_;
};

class RolloutsTest : public testing::Test {
 protected:
  void Make(int count) {
    for (int i = 0; i < count; ++i) {
      replicas.push_back(std::make_unique<SimReplica>(store, clock, std::string(1, static_cast<char>('a' + i))));
    }
    Run(seconds(1));
  }
  void Step() {
    clock.Advance(kStep);
    for (auto& replica : replicas) replica->Serve(random, behaviour);
    store.Run();
    for (auto& replica : replicas) replica->rollouts->Tick();
    store.Run();
  }
  void Run(Duration time, const std::function<bool()>& done = nullptr) {
    for (Duration passed{}; passed < time && !(done && done()); passed += kStep) Step();
  }
  SimReplica& Leader() {
    for (auto& replica : replicas) {
      if (replica->rollouts->Describe().leads) return *replica;
    }
    ADD_FAILURE() << "nobody leads";
    return *replicas[0];
  }
  absl::StatusOr<RolloutState> Say(SimReplica& replica, Order order, bool force = false) {
    return replica.rollouts->Obey("ttft_pipeline", order, "alice", "test", {}, force);
  }
  void Start() {
    const auto started = Say(*replicas.back(), Order::kStart, true);
    ASSERT_TRUE(started.ok()) << started.status();
  }
  Phase phase() { return Leader().rollouts->Describe().rollouts[0].state.phase; }
  uint32_t Highest() const {
    uint32_t highest = 0;
    for (const auto& replica : replicas) highest = std::max(highest, replica->serving.bps);
    return highest;
  }

  std::mt19937_64 random{kSeed};
  test::ManualClock clock;
  SimStore store{clock};
  Behaviour behaviour;
  std::vector<std::unique_ptr<SimReplica>> replicas;
};

TEST_F(RolloutsTest, AHealthyCandidateClimbsByItselfOnEveryReplica) {
  Make(3);
  EXPECT_FALSE(replicas[0]->serving.begun);
  Start();
  std::vector<uint32_t> seen;
  Run(std::chrono::minutes(20), [&] {
    if (seen.empty() || seen.back() != Highest()) seen.push_back(Highest());
    return phase() == Phase::kComplete;
  });
  EXPECT_EQ(phase(), Phase::kComplete) << Leader().rollouts->Describe().rollouts[0].state.cause << "; "
                                       << Leader().rollouts->Describe().rollouts[0].judgement.cause;
  EXPECT_EQ(seen, (std::vector<uint32_t>{0, 100, 1'000, 5'000, 9'900}));
  Run(seconds(1));
  for (const auto& replica : replicas) EXPECT_EQ(replica->serving.bps, 9'900u);
  EXPECT_TRUE(replicas[0]->told == replicas[2]->told) << "everybody learns of every move";
  replicas[0]->told.clear();
  replicas[0]->Restart();
  Run(seconds(2));
  EXPECT_TRUE(replicas[0]->told.empty()) << "what was before a restart is not told again";
}

TEST_F(RolloutsTest, FaultsRollBackEverywhereAndTheEvidenceSaysWhy) {
  Make(3);
  for (const bool slow : {false, true}) {
    behaviour = {};
    Start();
    Run(std::chrono::minutes(10), [&] { return Highest() >= 1'000; });
    ASSERT_EQ(Highest(), 1'000u);
    if (slow) {
      behaviour.canary_slowness = 3;
    } else {
      behaviour.canary_error_rate = 0.05;
    }
    Run(std::chrono::minutes(2), [&] { return Highest() == 0; });
    ASSERT_EQ(Highest(), 0u);
    Run(seconds(1));
    EXPECT_EQ(phase(), Phase::kRolledBack);
    for (const auto& replica : replicas) EXPECT_TRUE(replica->serving.rolled_back);
    const auto evidence = replicas[0]->rollouts->EvidenceOf("ttft_pipeline");
    ASSERT_TRUE(evidence.ok());
    const auto newest = nlohmann::json::parse(evidence->front());
    EXPECT_EQ(newest["to"], "rolled_back");
    EXPECT_NE(newest["cause"].get<std::string>().find(slow ? "p95" : "error_rate"), std::string::npos)
        << newest["cause"];
    EXPECT_GT(newest["series"]["points"].size(), 5u);
    Run(seconds(60));
    EXPECT_EQ(Highest(), 0u) << "and it stays there";
  }
}

TEST_F(RolloutsTest, AReplicaTripsAtOnceByItselfAndTheOthersFollow) {
  Make(3);
  Start();
  Run(std::chrono::minutes(10), [&] { return Highest() >= 1'000; });
  replicas[1]->connection->SetCut(true);
  replicas[1]->broken = "ttft breaker open for 10 s";
  Step();
  EXPECT_EQ(replicas[1]->serving.bps, 0u) << "even when the store is out of reach";
  EXPECT_EQ(replicas[0]->serving.bps, 1'000u);
  replicas[1]->connection->SetCut(false);
  Run(seconds(1));
  EXPECT_EQ(Highest(), 0u);
  EXPECT_EQ(Leader().rollouts->Describe().rollouts[0].state.cause, "replica b: ttft breaker open for 10 s");
}

TEST_F(RolloutsTest, TripsOfEarlierAttemptsAreForgotten) {
  Make(2);
  const std::string trips = std::string(kRoot) + "flag/ttft_pipeline/trip/";
  const auto kept = [&] { return replicas[0]->connection->List(trips)->entries.size(); };
  for (int attempt = 0; attempt < 4; ++attempt) {
    Start();
    Run(std::chrono::minutes(10), [&] { return Highest() > 0; });
    ASSERT_GT(Highest(), 0u) << "an earlier trip says nothing about attempt " << attempt;
    EXPECT_EQ(kept(), 0u);
    replicas[1]->broken = "ttft breaker open for 10 s";
    Run(seconds(2));
    replicas[1]->broken.clear();
    EXPECT_EQ(Highest(), 0u);
    EXPECT_EQ(kept(), 1u);
  }
}

TEST_F(RolloutsTest, AStoreThatHangsDelaysNoRollback) {
  Make(2);
  Start();
  Run(seconds(60), [this] { return Highest() == 100; });
  SimReplica& leader = Leader();
  ASSERT_EQ(leader.serving.bps, 100);
  bool hung = false;
  leader.connection->on_call = [&] {  // on the thread that waits for the store; the guard's thread goes on
    hung = true;
    leader.broken = "the breaker is open";
    leader.rollouts->Guard();
    EXPECT_TRUE(leader.serving.rolled_back);
    EXPECT_EQ(leader.serving.bps, 0);
    clock.Advance(SimStore::kTtl + milliseconds(1));  // the watch has said nothing
    leader.rollouts->Guard();
    EXPECT_EQ(leader.rollouts->Describe().store_error, "the state store does not answer");
    EXPECT_EQ(leader.rollouts->Describe().stale_for, milliseconds(1));
  };
  Run(seconds(10));
  EXPECT_TRUE(hung);
  EXPECT_EQ(leader.rollouts->Describe().store_error, "");
  EXPECT_EQ(Highest(), 0);  // the others heard of it afterwards
  EXPECT_EQ(phase(), Phase::kRolledBack);
}

TEST_F(RolloutsTest, OnlyTheLeaderPromotesAndAnybodyRollsBack) {
  Make(2);
  Start();
  Run(seconds(2));
  SimReplica& leader = Leader();
  SimReplica& other = &leader == replicas[0].get() ? *replicas[1] : *replicas[0];
  const auto refused = Say(other, Order::kPromote);
  EXPECT_EQ(GetErrorDetails(refused.status()).reason, Reason::kNotLeader);
  EXPECT_NE(refused.status().message().find("replica " + leader.name() + " leads"), absl::string_view::npos);
  ASSERT_TRUE(Say(leader, Order::kPromote).ok());
  EXPECT_EQ(leader.serving.bps, 1'000u);
  other.connection->SetCut(true);
  const auto back = Say(other, Order::kRollback);
  EXPECT_EQ(GetErrorDetails(back.status()).reason, Reason::kStateNotKept);
  EXPECT_EQ(other.serving.bps, 0u);
  other.connection->SetCut(false);
  Run(seconds(1));
  EXPECT_EQ(Highest(), 0u) << "it kept trying";
  EXPECT_EQ(GetErrorDetails(leader.rollouts->Obey("phase5", Order::kStart, "a", "b", {}, false).status()).reason,
            Reason::kRolloutNotFound);
}

TEST_F(RolloutsTest, TheNextLeaderGoesOnWithTheSameEvidence) {
  Make(3);
  Start();
  Run(seconds(8));
  SimReplica& old = Leader();
  const auto before = old.rollouts->Describe().rollouts[0].seen;
  ASSERT_GT(before.canary_events, 0u);
  old.connection->SetCut(true);
  Run(SimStore::kTtl + seconds(1));
  SimReplica& next = Leader();
  ASSERT_NE(next.name(), old.name());
  const auto after = next.rollouts->Describe().rollouts[0].seen;
  EXPECT_GE(after.canary_events, before.canary_events);
  EXPECT_NE(after.hold.find("no telemetry of replica " + old.name()), std::string::npos) << after.hold;
  Run(seconds(20));
  EXPECT_NE(phase(), Phase::kRolledBack) << "silence never rolls back";
}

TEST_F(RolloutsTest, SilenceAndWrongClocksHoldAndNeverPromote) {
  Make(3);
  Start();
  Run(seconds(5));
  SimReplica& leader = Leader();
  SimReplica& other = &leader == replicas[0].get() ? *replicas[1] : *replicas[0];
  behaviour.requests = 0;
  Run(std::chrono::minutes(5));
  EXPECT_EQ(phase(), Phase::kInconclusive) << "no traffic";
  EXPECT_EQ(Highest(), 100u);
  behaviour.requests = 60;
  // A clock that jumps is not believed by the replica itself; one that was wrong from its start is found by the leader.
  other.clock.off = std::chrono::hours(1);
  Run(seconds(3));
  EXPECT_EQ(leader.rollouts->Describe().rollouts[0].seen.hold, "");
  other.Restart();
  Run(seconds(5));
  EXPECT_NE(leader.rollouts->Describe().rollouts[0].seen.hold.find("the clock of replica " + other.name()),
            std::string::npos)
      << leader.rollouts->Describe().rollouts[0].seen.hold;
  EXPECT_EQ(phase(), Phase::kHolding);
  const uint32_t held = Highest();
  Run(std::chrono::minutes(3));
  EXPECT_EQ(Highest(), held);
}

// One thing that may happen to a replica, its store, or the time.
void Disturb(SimReplica& one, SimStore& store, test::ManualClock& time, const std::function<uint64_t(uint64_t)>& pick) {
  switch (pick(12)) {
    case 0:
      return one.connection->SetCut(pick(2) == 0);
    case 1:
      return store.SetDown(pick(3) == 0);
    case 2:
      one.clock.off = seconds(static_cast<int64_t>(pick(7200)) - 3600);
      return;
    case 3:
      return time.Advance(seconds(pick(8)));
    case 4:
      one.broken = pick(3) == 0 ? "broken" : "";
      return;
    case 5:
      return one.Restart();
    case 6:
    case 7:
    case 8:
      (void)one.rollouts->Obey("ttft_pipeline", static_cast<Order>(pick(4)), "x", "y", {}, true);
      return;
    default:
      return;
  }
}

// Cuts, stores that go down, leaders that stop, clocks that jump, trips and orders at random. What each replica serves
// is compared with a model of the rule, and each raise with who held the leader's key when it was put.
TEST_F(RolloutsTest, RandomPartitionsNeverServeMoreThanTheMergeRuleAllows) {
  for (int history = 0; history < 200; ++history) {
    SCOPED_TRACE(testing::Message() << "history " << history << " of seed " << kSeed);
    std::mt19937_64 fate(kSeed + static_cast<uint64_t>(history));
    const std::function<uint64_t(uint64_t)> pick = [&fate](uint64_t n) { return fate() % n; };
    test::ManualClock time;
    SimStore shared(time);
    std::vector<std::unique_ptr<SimReplica>> group;
    for (const char* name : {"a", "b", "c"}) group.push_back(std::make_unique<SimReplica>(shared, time, name));
    std::map<uint64_t, RolloutState> by_epoch;  // all that was ever decided
    std::set<uint64_t> tripped;                 // attempts, as soon as the store knows
    uint32_t last_bps = 0;
    shared.on_put = [&](const SimStore::Connection* by, const state::Entry& put) {
      if (put.key.find("/trip/") != std::string::npos) {
        tripped.insert(std::stoull(put.key.substr(put.key.rfind('/') + 1)));
      }
      if (put.key != StateKey("ttft_pipeline")) return;
      const RolloutState state = *DecodeRolloutState(put.value);
      ASSERT_TRUE(by_epoch.emplace(state.epoch, state).second) << "an epoch is decided once";
      ASSERT_EQ(state.epoch, by_epoch.size()) << "and none is left out";
      if (state.bps > last_bps) {
        const auto leader = shared.table().Get("rollouts/leader");
        ASSERT_TRUE(leader.ok());
        const auto raiser =
            std::find_if(group.begin(), group.end(), [&](auto& r) { return r->connection.get() == by; });
        ASSERT_EQ(leader->value, (*raiser)->name()) << "only the leader raises";
      }
      last_bps = state.bps;
    };
    for (int step = 0; step < 80; ++step) {
      SimReplica& one = *group[pick(3)];
      Disturb(one, shared, time, pick);
      time.Advance(kStep);
      for (auto& replica : group) replica->Serve(fate, {.requests = 5});
      shared.Run();
      for (auto& replica : group) replica->rollouts->Tick();
      shared.Run();
      for (auto& replica : group) {
        const Serving& serving = replica->serving;
        if (!serving.begun) continue;
        const auto decided = by_epoch.find(serving.epoch);
        ASSERT_NE(decided, by_epoch.end()) << "it serves what nobody decided";
        ASSERT_LE(serving.bps, decided->second.bps);
        ASSERT_TRUE(!serving.rolled_back || serving.bps == 0);
      }
    }
    for (auto& replica : group) {
      replica->connection->SetCut(false);
      replica->broken.clear();
    }
    shared.SetDown(false);
    for (int i = 0; i < 60; ++i) {
      time.Advance(kStep);
      shared.Run();
      for (auto& replica : group) replica->rollouts->Tick();
    }
    if (by_epoch.empty()) continue;
    const RolloutState& newest = by_epoch.rbegin()->second;
    for (auto& replica : group) {
      ASSERT_EQ(replica->serving.bps, tripped.contains(newest.attempt) ? 0 : newest.bps) << "they agree in the end";
    }
  }
}

}  // namespace
}  // namespace sluice::rollout
