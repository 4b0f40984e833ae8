#include "flags/flag_sources.h"

#include <cmath>
#include <set>

#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

namespace sluice::flags {
namespace {

using test::IsOk;
using test::StatusIs;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

LayerContent File(RolloutBps phase5) {
  return {.flags = {On(kPhase5, phase5), On(kTtftPipeline, 10000, kPhase5), On(kQosPolicy, 10000, kPhase5)}};
}

class FlagSourcesTest : public testing::Test {
 protected:
  std::vector<std::string> LastChanges() const {
    std::vector<std::string> out;
    for (const FlagChange& c : updates_.back().changes) {
      out.push_back(fmt::format("{}.{}: {} -> {} by {}", c.flag, c.field, c.before, c.after, LayerName(c.layer)));
    }
    return out;
  }
  uint64_t epoch() const { return gate_.snapshot()->epoch(); }
  double Reloads(const std::string& result) const {
    for (const MetricFamily& family : metrics_.Collect()) {
      for (const MetricSample& sample : family.samples) {
        if (family.name == "sluice_flag_reloads_total" && sample.label_values[0] == result) return sample.value;
      }
    }
    return -1;
  }

  const Layers initial_ = {{Layer::kFile, File(100)}};
  MetricsRegistry metrics_;
  FlagGate gate_{Make(MergeLayers(initial_), 1), metrics_};
  std::vector<FlagUpdate> updates_;
  FlagSources sources_{gate_, initial_, [this](const FlagUpdate& update) { updates_.push_back(update); }};
};

TEST_F(FlagSourcesTest, AChangeIsANewEpochAndIsTold) {
  ASSERT_THAT(sources_.SetLayer(Layer::kFile, File(1000), "SIGHUP"), IsOk());
  EXPECT_EQ(epoch(), 2u);
  ASSERT_EQ(updates_.size(), 1u);
  EXPECT_EQ(updates_[0].cause, "SIGHUP");
  EXPECT_EQ(updates_[0].epoch, 2u);
  EXPECT_THAT(LastChanges(), ElementsAre("phase5.rollout_percentage: 1 % (file) -> 10 % (file) by file"));
  EXPECT_EQ(Reloads("ok"), 1);
}

TEST_F(FlagSourcesTest, SameContentIsNoNewEpoch) {
  LayerContent file = File(100);
  file.flags[0].allow = Keys({"a", "b", "c"});
  file.flags[0].variants = {Of("v", {{"k", 1}})};
  ASSERT_THAT(sources_.SetLayer(Layer::kFile, file, "reload"), IsOk());
  EXPECT_EQ(epoch(), 2u);
  file.flags[0].allow = Keys({"c", "b", "a"});
  file.flags[0].variants = {Of("v", {{"k", 1}})};
  ASSERT_THAT(sources_.SetLayer(Layer::kFile, file, "reload"), IsOk());
  EXPECT_EQ(epoch(), 2u);
  EXPECT_EQ(updates_.size(), 1u);
  file.flags[0].allow = Keys({"c", "b", "d"});
  ASSERT_THAT(sources_.SetLayer(Layer::kFile, file, "reload"), IsOk());
  EXPECT_EQ(epoch(), 3u);
  EXPECT_THAT(LastChanges(), ElementsAre(testing::StartsWith("phase5.allow: 3 keys #")));
}

TEST_F(FlagSourcesTest, AnErrorKeepsTheLastGoodSetAndLayer) {
  LayerContent bad = File(100);
  bad.flags[1].parent = "nobody";
  EXPECT_THAT(sources_.SetLayer(Layer::kFile, bad, "reload"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(epoch(), 1u);
  EXPECT_EQ(Reloads("failed"), 1);
  ASSERT_EQ(updates_.size(), 1u);
  EXPECT_FALSE(updates_[0].status.ok());
  EXPECT_THAT(updates_[0].changes, IsEmpty());
  EXPECT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {.rollout_bps = 200}, "alice"), IsOk())
      << "the bad layer was not kept";
  EXPECT_THAT(sources_.SetLayer(Layer::kEnv, {.flags = {On("x", 0)}}, "x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("the layer env cannot define flags")));
}

TEST_F(FlagSourcesTest, CompareAndSet) {
  EXPECT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {.rollout_bps = 200}, "alice", 1), IsOk());
  EXPECT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {.rollout_bps = 300}, "bob", 1),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("at epoch 2, not at the expected 1")));
  EXPECT_EQ(gate_.snapshot()->Find("phase5")->rollout_bps, 200u);
  EXPECT_THAT(sources_.SetValues(Layer::kOverride, "nope", {.enabled = true}, "alice"),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(FlagSourcesTest, AnOverrideIsTakenBack) {
  ASSERT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {.enabled = false, .enabled_by = "alice"}, "alice"),
              IsOk());
  EXPECT_THAT(LastChanges(),
              ElementsAre("phase5.enabled: true (file) -> false (override) by override",
                          "phase5.enabled of file:  -> true inert: override alice holds false by override"));
  ASSERT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {}, "alice"), IsOk());
  EXPECT_TRUE(gate_.snapshot()->Find("phase5")->enabled);
  ASSERT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {.enabled = false}, "alice"), IsOk());
  ASSERT_THAT(sources_.Clear(Layer::kOverride, "alice"), IsOk());
  EXPECT_TRUE(gate_.snapshot()->Find("phase5")->enabled);
  EXPECT_EQ(epoch(), 5u);
}

TEST_F(FlagSourcesTest, AnInertOverrideIsShown) {
  ASSERT_THAT(sources_.SetLayer(Layer::kEnv,
                                {.values = {{"phase5", {.rollout_bps = 1000, .rollout_by = "PHASE5_ROLLOUT_PERCENT"}}}},
                                "start"),
              IsOk());
  ASSERT_THAT(sources_.SetValues(Layer::kOverride, "phase5", {.rollout_bps = 5000}, "alice"), IsOk());
  EXPECT_EQ(gate_.snapshot()->Find("phase5")->rollout_bps, 1000u);
  const std::string line = "override rollout_percentage 50 % of phase5 is inert: env PHASE5_ROLLOUT_PERCENT holds 10 %";
  EXPECT_THAT(gate_.snapshot()->Describe().warnings, ElementsAre(line));
  EXPECT_THAT(sources_.Explain("phase5", {.targeting_key = "a"}).Text(), HasSubstr(line));
}

TEST_F(FlagSourcesTest, AStaleLayerKeepsItsContent) {
  ASSERT_THAT(sources_.SetLayer(Layer::kRemote, {.flags = {On("far", 10000)}}, "sync"), IsOk());
  sources_.MarkStale(Layer::kRemote, true);
  const Explanation why = sources_.Explain("far", {});
  EXPECT_TRUE(why.decision.in);
  EXPECT_THAT(why.stale, ElementsAre("remote"));
  EXPECT_TRUE(sources_.layers().at(Layer::kRemote).stale);
  EXPECT_EQ(epoch(), 2u);
  ASSERT_THAT(sources_.SetLayer(Layer::kRemote, {.flags = {On("far", 10000)}}, "sync"), IsOk());
  EXPECT_FALSE(sources_.layers().at(Layer::kRemote).stale);
  EXPECT_EQ(epoch(), 2u) << "the content is the same";
}

TEST_F(FlagSourcesTest, EmergencyAndRollbackBeatEverything) {
  ASSERT_THAT(sources_.SetLayer(Layer::kEnv, {.values = {{"phase5", {.rollout_bps = 10000}}}}, "start"), IsOk());
  ASSERT_THAT(sources_.SetValues(Layer::kRollback, "phase5", {.rollout_bps = 0}, "errors"), IsOk());
  EXPECT_FALSE(gate_.Decide({.targeting_key = "a"}).phase5.in);
  ASSERT_THAT(sources_.Clear(Layer::kRollback, "alice"), IsOk());
  EXPECT_TRUE(gate_.Decide({.targeting_key = "a"}).phase5.in);
  ASSERT_THAT(sources_.SetLayer(Layer::kEmergency, {.kill_switch = true}, "alice"), IsOk());
  EXPECT_EQ(gate_.Decide({.targeting_key = "a"}).ttft_pipeline.reason, Reason::kEmergency);
  EXPECT_THAT(LastChanges(), ElementsAre("emergency.kill_switch: false -> true by emergency"));
}

// The operator's story: 1 -> 10 -> 50 -> 100 % in the file for 1000 users. Users only ever join.
TEST_F(FlagSourcesTest, ARampOnlyAddsUsers) {
  constexpr int kUsers = 1000;
  std::set<std::string> in;
  uint64_t expected_epoch = 1;
  for (const RolloutBps bps : {100, 1000, 5000, 10000}) {
    if (bps != 100) {
      ASSERT_THAT(sources_.SetLayer(Layer::kFile, File(bps), "edited"), IsOk());
      ++expected_epoch;
    }
    std::set<std::string> now;
    for (int call = 0; call < 2 * kUsers; ++call) {  // each user twice: nobody flips
      const std::string user = fmt::format("user-{}", call % kUsers);
      const RequestDecisions d = gate_.Decide({.targeting_key = user});
      ASSERT_EQ(d.phase5.epoch, expected_epoch);
      ASSERT_EQ(d.ttft_pipeline.in, d.phase5.in);
      if (d.phase5.in) {
        now.insert(user);
      } else {
        ASSERT_FALSE(in.contains(user)) << user << " left at " << bps;
        ASSERT_FALSE(now.contains(user)) << user << " flipped";
      }
    }
    const double p = bps / 10000.0;
    EXPECT_NEAR(static_cast<double>(now.size()), kUsers * p, 4 * std::sqrt(kUsers * p * (1 - p)) + 0.5);
    in = now;
  }
  EXPECT_EQ(in.size(), static_cast<size_t>(kUsers));
  ASSERT_THAT(sources_.SetLayer(Layer::kEnv, {.values = {{"phase5", {.enabled = false}}}}, "PHASE5_ENABLED"), IsOk());
  EXPECT_FALSE(gate_.Decide({.targeting_key = "user-1"}).ttft_pipeline.in);
}

}  // namespace
}  // namespace sluice::flags
