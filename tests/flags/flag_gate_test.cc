#include "flags/flag_gate.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "flags/bucket.h"
#include "fmt/format.h"
#include "tests/support/status_matchers.h"

namespace sluice::flags {
namespace {

Flag On(std::string_view key, RolloutBps bps, std::string_view parent = "") {
  return {.key = std::string(key), .enabled = true, .rollout_bps = bps, .parent = std::string(parent)};
}

std::shared_ptr<const FlagSet> Make(RolloutBps bps, uint64_t epoch) {
  return *FlagSet::Create(
      {.flags = {On(kPhase5, 10000), On(kTtftPipeline, bps, kPhase5), On(kQosPolicy, bps, kPhase5)}}, epoch);
}

double Value(const MetricsRegistry& metrics, std::string_view name, const std::vector<std::string>& labels) {
  for (const MetricFamily& family : metrics.Collect()) {
    if (family.name != name) continue;
    for (const MetricSample& sample : family.samples) {
      if (sample.label_values == labels) return sample.value;
    }
  }
  ADD_FAILURE() << "no series " << name << " " << testing::PrintToString(labels);
  return -1;
}

TEST(FlagGateTest, DecidesTheThreeFlagsFromOneSnapshot) {
  MetricsRegistry metrics;
  FlagGate gate(Make(10000, 1), metrics);
  const RequestDecisions decisions = gate.Decide({.targeting_key = "alice"});
  EXPECT_EQ(decisions.phase5.flag, "phase5");
  EXPECT_EQ(decisions.ttft_pipeline.flag, "ttft_pipeline");
  EXPECT_EQ(decisions.qos_policy.flag, "qos_policy");
  EXPECT_TRUE(decisions.phase5.in && decisions.ttft_pipeline.in && decisions.qos_policy.in);
  EXPECT_EQ(decisions.snapshot, gate.snapshot());
}

// The gate spares the second hash of phase5; nothing else may differ from asking one by one.
TEST(FlagGateTest, DecidesAsTheSetDoes) {
  MetricsRegistry metrics;
  Flag phase5 = On(kPhase5, 5000), stranger = On("stranger", 5000);
  const auto set = *FlagSet::Create(
      {.flags = {phase5, stranger, On(kTtftPipeline, 5000, kPhase5), On(kQosPolicy, 5000, "stranger")}}, 1);
  FlagGate gate(set, metrics);
  for (int i = 0; i < 2000; ++i) {
    const std::string key = fmt::format("user-{}", i);
    const EvaluationContext context{.targeting_key = key};
    const RequestDecisions decisions = gate.Decide(context);
    for (const Decision* d : {&decisions.phase5, &decisions.ttft_pipeline, &decisions.qos_policy}) {
      ASSERT_EQ(Explain(*d), Explain(set->Evaluate(d->flag, context)));
    }
  }
}

TEST(FlagGateTest, DecisionsOutliveTheirSet) {
  MetricsRegistry metrics;
  FlagGate gate(Make(10000, 1), metrics);
  const RequestDecisions before = gate.Decide({.targeting_key = "alice"});
  gate.Swap(Make(0, 2));
  EXPECT_EQ(Explain(before.ttft_pipeline), "ttft_pipeline=on;reason=STATIC;layer=file;epoch=1");
  EXPECT_EQ(Explain(gate.Decide({.targeting_key = "alice"}).ttft_pipeline),
            "ttft_pipeline=off;reason=STATIC;layer=file;epoch=2");
}

TEST(FlagGateTest, ReplacedSetsAreFreed) {
  MetricsRegistry metrics;
  std::weak_ptr<const FlagSet> old;
  {
    auto first = Make(1, 1);
    old = first;
    FlagGate gate(std::move(first), metrics);
    gate.Swap(Make(1, 2));
    EXPECT_TRUE(old.expired());
    old = gate.snapshot();
  }
  EXPECT_TRUE(old.expired());
}

TEST(FlagGateTest, MissingWellKnownFlagsAreOut) {
  MetricsRegistry metrics;
  FlagGate gate(*FlagSet::Create({}, 1), metrics);
  EXPECT_EQ(Explain(gate.Decide({.targeting_key = "a"}).qos_policy),
            "qos_policy=off;reason=FLAG_NOT_FOUND;layer=default;epoch=1");
}

TEST(FlagGateTest, Metrics) {
  MetricsRegistry metrics;
  FlagGate gate(Make(10000, 4), metrics);
  EXPECT_EQ(Value(metrics, "sluice_flag_epoch", {}), 4);
  EXPECT_EQ(Value(metrics, "sluice_flag_rollout_ratio", {"ttft_pipeline"}), 1);
  (void)gate.Decide({.targeting_key = "a"});
  gate.Swap(Make(0, 5));
  (void)gate.Decide({.targeting_key = "a"});
  (void)gate.Decide({.targeting_key = "b"});
  EXPECT_EQ(Value(metrics, "sluice_flag_evaluations_total", {"phase5", "on", "STATIC"}), 3);
  EXPECT_EQ(Value(metrics, "sluice_flag_evaluations_total", {"ttft_pipeline", "on", "STATIC"}), 1);
  EXPECT_EQ(Value(metrics, "sluice_flag_evaluations_total", {"ttft_pipeline", "off", "STATIC"}), 2);
  EXPECT_EQ(Value(metrics, "sluice_flag_epoch", {}), 5);
  EXPECT_EQ(Value(metrics, "sluice_flag_rollout_ratio", {"ttft_pipeline"}), 0);

  gate.Swap(*FlagSet::Create({}, 6));
  EXPECT_EQ(Value(metrics, "sluice_flag_rollout_ratio", {"phase5"}), 0) << "a flag that is gone";
  gate.CountFailedReload();
  EXPECT_EQ(Value(metrics, "sluice_flag_reloads_total", {"ok"}), 2);
  EXPECT_EQ(Value(metrics, "sluice_flag_reloads_total", {"failed"}), 1);
}

TEST(FlagGateTest, SampleRatioIsWatchedAndRestartsWithThePercentage) {
  MetricsRegistry metrics;
  FlagGate gate(Make(5000, 1), metrics);
  const auto value = [&] { return Value(metrics, "sluice_flag_sample_ratio_e_value", {"ttft_pipeline"}); };
  const auto ask = [&](bool only_in) {  // only_in: as if the others' decisions were lost
    for (int i = 0; i < 3000; ++i) {
      const std::string key = fmt::format("user-{}", i);
      if (!only_in || BucketV2(kTtftPipeline, key) < 5000) (void)gate.Decide({.targeting_key = key});
    }
  };
  ask(/*only_in=*/false);
  const double honest = value();
  EXPECT_NE(honest, 1);
  EXPECT_EQ(Value(metrics, "sluice_flag_sample_ratio_alarm", {"ttft_pipeline"}), 0);
  gate.Swap(Make(5000, 2));
  EXPECT_EQ(value(), honest) << "the same percentage";
  gate.Swap(Make(4000, 3));
  EXPECT_EQ(value(), 1);
  gate.Swap(Make(5000, 4));
  ask(/*only_in=*/true);
  EXPECT_EQ(Value(metrics, "sluice_flag_sample_ratio_alarm", {"ttft_pipeline"}), 1);
  EXPECT_EQ(Value(metrics, "sluice_flag_sample_ratio_alarm", {"phase5"}), 0) << "it has no split";
}

TEST(FlagGateTest, ChangesAreToldInOrderUntilTheSubscriptionEnds) {
  MetricsRegistry metrics;
  std::vector<std::string> told;
  FlagGate::Subscription outlives;
  {
    FlagGate gate(Make(0, 1), metrics);
    const auto note = [&](const auto& before, const auto& after) {
      EXPECT_EQ(gate.snapshot(), after);
      told.push_back(fmt::format("{}->{}", before->epoch(), after->epoch()));
    };
    outlives = gate.OnChange(note);
    {
      const FlagGate::Subscription second = gate.OnChange(note);
      gate.Swap(Make(1, 2));
    }
    gate.Swap(Make(2, 3));
  }
  EXPECT_EQ(told, (std::vector<std::string>{"1->2", "1->2", "2->3"}));
}

TEST(FlagGateTest, TellsOfSchedulesThatBeginAndEnd) {
  using std::chrono::seconds;
  const WallTime day{std::chrono::hours(24 * 365 * 50)};
  Flag timed = On("timed", kBuckets), always = On("always", kBuckets), forever = On("forever", kBuckets);
  timed.schedule = {.start = day + seconds(10), .end = day + seconds(20)};
  forever.schedule = {.start = day + seconds(20)};
  MetricsRegistry metrics;
  const auto set = *FlagSet::Create({.flags = {timed, always, forever}}, 7);
  FlagGate gate(set, metrics);
  std::vector<std::string> told;
  const FlagGate::Subscription subscription =
      gate.OnChange([](const auto&, const auto&) { ADD_FAILURE() << "nobody swapped"; },
                    [&](const auto& of, const auto& changes) {
                      EXPECT_EQ(of, set);
                      for (const FlagChange& c : changes)
                        told.push_back(fmt::format("{}.{} {}->{}", c.flag, c.field, c.before, c.after));
                    });
  const auto pass = [&](int at) {
    told.clear();
    const size_t changes = gate.PassTime(day + seconds(at)).size();
    EXPECT_EQ(changes, told.size());
    return told;
  };
  using Told = std::vector<std::string>;
  EXPECT_EQ(pass(15), Told{}) << "the first look";
  EXPECT_EQ(pass(5), Told{}) << "set back";
  EXPECT_EQ(pass(9), Told{});
  EXPECT_EQ(pass(10), Told{"timed.schedule outside->inside"});
  EXPECT_EQ(pass(19), Told{});
  EXPECT_EQ(pass(25), (Told{"timed.schedule inside->outside", "forever.schedule outside->inside"}));
  EXPECT_EQ(pass(5), Told{}) << "set back";
  EXPECT_EQ(pass(30), Told{"forever.schedule outside->inside"}) << "the other one was passed as a whole";
}

TEST(FlagGateTest, EndingASubscriptionWaitsForItsCallback) {
  MetricsRegistry metrics;
  FlagGate gate(Make(0, 1), metrics);
  std::atomic<bool> inside{false}, leave{false};
  auto subscription = std::make_unique<FlagGate::Subscription>(gate.OnChange([&](const auto&, const auto&) {
    inside = true;
    inside.notify_all();
    leave.wait(false);
    inside = false;
  }));
  std::thread writer([&] { gate.Swap(Make(1, 2)); });
  inside.wait(false);
  std::thread ender([&] {
    subscription.reset();
    EXPECT_FALSE(inside) << "still running";
  });
  leave = true;
  leave.notify_all();
  writer.join();
  ender.join();
  gate.Swap(Make(2, 3));
  EXPECT_FALSE(inside) << "called after its end";
}

// Each request sees one whole set: even epochs put everybody in, odd ones nobody.
TEST(FlagGateTest, SwapsUnderRunningRequests) {
  MetricsRegistry metrics;
  FlagGate gate(Make(0, 1), metrics);
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0}, backwards{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&] {
      uint64_t last = 0;
      do {
        const RequestDecisions d = gate.Decide({.targeting_key = "alice"});
        const bool in = d.snapshot->epoch() % 2 == 0;
        if (d.ttft_pipeline.in != in || d.qos_policy.in != in || d.ttft_pipeline.epoch != d.qos_policy.epoch) ++torn;
        if (d.snapshot->epoch() < last) ++backwards;
        last = d.snapshot->epoch();
      } while (!stop);
    });
  }
  for (uint64_t epoch = 2; epoch < 3000; ++epoch) gate.Swap(Make(epoch % 2 == 0 ? 10000 : 0, epoch));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(backwards, 0);
}

}  // namespace
}  // namespace sluice::flags
