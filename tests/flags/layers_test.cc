#include "flags/layers.h"

#include <cstdio>
#include <random>

#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

namespace sluice::flags {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> InertOf(const FlagSetSpec& spec) {
  std::vector<std::string> out;
  for (const InertValue& inert : spec.inert) out.push_back(Describe(inert));
  return out;
}

TEST(LayersTest, AHigherLayerPinsALowerOne) {
  Layers layers;
  layers[Layer::kFile].flags = {On("phase5", 10000)};
  layers[Layer::kOverride].values["phase5"] = {.rollout_bps = 5000, .rollout_by = "alice"};
  layers[Layer::kEnv].values["phase5"] = {
      .enabled = true, .rollout_bps = 1000, .enabled_by = "PHASE5_ENABLED", .rollout_by = "PHASE5_ROLLOUT_PERCENT"};
  const FlagSetSpec spec = MergeLayers(layers);
  ASSERT_EQ(spec.flags.size(), 1u);
  EXPECT_EQ(spec.flags[0].rollout_bps, 1000u);
  EXPECT_EQ(spec.flags[0].rollout_layer, Layer::kEnv);
  EXPECT_EQ(spec.flags[0].layer, Layer::kEnv);
  EXPECT_EQ(spec.flags[0].definition_layer, Layer::kFile);
  EXPECT_THAT(
      InertOf(spec),
      ElementsAre("file enabled true of phase5 is inert: env PHASE5_ENABLED holds true",
                  "file rollout_percentage 100 % of phase5 is inert: env PHASE5_ROLLOUT_PERCENT holds 10 %",
                  "override rollout_percentage 50 % of phase5 is inert: env PHASE5_ROLLOUT_PERCENT holds 10 %"));
}

TEST(LayersTest, ARemoteDefinitionReplacesTheFilesWhole) {
  Layers layers;
  layers[Layer::kDefault].flags = {On("f", 10000)};
  layers[Layer::kDefault].flags[0].rollout_layer = Layer::kDefault;
  layers[Layer::kFile].flags = {On("f", 100), On("g", 200)};
  layers[Layer::kFile].flags[0].dry_run = true;
  layers[Layer::kRemote].flags = {On("f", 300), On("h", 400)};
  layers[Layer::kRemote].flags[0].rollout_layer = Layer::kDefault;  // it does not say
  const FlagSetSpec spec = MergeLayers(layers);
  ASSERT_EQ(spec.flags.size(), 3u);
  EXPECT_EQ(spec.flags[0].rollout_bps, 300u);
  EXPECT_FALSE(spec.flags[0].dry_run);
  EXPECT_EQ(spec.flags[0].definition_layer, Layer::kRemote);
  EXPECT_EQ(spec.flags[0].rollout_layer, Layer::kDefault);
  EXPECT_EQ(spec.flags[1].layer, Layer::kFile);
  EXPECT_EQ(spec.flags[2].key, "h");
  EXPECT_THAT(InertOf(spec), ElementsAre("file definition of f is inert: remote holds it"));
}

TEST(LayersTest, ValuesForAnUnknownFlagAreInert) {
  Layers layers;
  layers[Layer::kOverride].values["gone"] = {.enabled = false, .rollout_bps = 1};
  EXPECT_THAT(InertOf(MergeLayers(layers)),
              ElementsAre("override enabled false of gone is inert: there is no such flag",
                          "override rollout_percentage 0.01 % of gone is inert: there is no such flag"));
}

TEST(LayersTest, AnyLayersEmergencyHolds) {
  for (const Layer layer : {Layer::kFile, Layer::kRemote, Layer::kEmergency}) {
    Layers layers;
    layers[Layer::kFile] = {};
    layers[Layer::kEmergency] = {};
    layers[layer].kill_switch = true;
    EXPECT_TRUE(MergeLayers(layers).kill_switch);
    EXPECT_FALSE(MergeLayers(layers).rollback_to_baseline);
  }
}

TEST(LayersTest, AKeyGivenTwiceByOneLayerIsLeftForValidation) {
  Layers layers;
  layers[Layer::kDefault].flags = {On("f", 1)};
  layers[Layer::kFile].flags = {On("f", 2), On("f", 3)};
  EXPECT_FALSE(FlagSet::Create(MergeLayers(layers), 1).ok());
}

// Against the sentence "the highest layer that says something holds", written down as plainly as it is.
TEST(LayersTest, PrecedenceAgreesWithTheReferenceModel) {
  constexpr uint32_t kSeed = 20260705;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  const auto below = [&](uint32_t n) { return random() % n; };
  constexpr int kLayers = static_cast<int>(Layer::kEmergency) + 1;
  for (int round = 0; round < 2000; ++round) {
    Layers layers;
    for (int l = 0; l < kLayers; ++l) {
      LayerContent& content = layers[static_cast<Layer>(l)];
      for (const char* key : {"a", "b"}) {
        if (l <= static_cast<int>(Layer::kRemote) && below(2) == 0) {
          Flag flag = On(key, below(10001));
          flag.enabled = below(2) == 0;
          if (below(2) == 0) flag.rollout_layer = Layer::kDefault;
          content.flags.push_back(flag);
        }
        FlagValues values;
        if (below(3) == 0) values.enabled = below(2) == 0;
        if (below(3) == 0) values.rollout_bps = below(10001);
        if (values.enabled || values.rollout_bps) content.values[key] = values;
      }
    }
    const FlagSetSpec merged = MergeLayers(layers);
    size_t expected_flags = 0, expected_inert = 0;
    for (const std::string key : {"a", "b"}) {
      const Flag* definition = nullptr;
      int defined_by = -1;
      std::map<int, bool> enabled;  // every layer's word; the last one holds
      std::map<int, RolloutBps> rollout;
      for (int l = 0; l < kLayers; ++l) {
        for (const Flag& flag : layers[static_cast<Layer>(l)].flags) {
          if (flag.key != key) continue;
          expected_inert += defined_by > 0;  // the one below is shadowed
          definition = &flag;
          defined_by = l;
        }
      }
      if (definition != nullptr) {
        enabled[defined_by] = definition->enabled;
        rollout[definition->rollout_layer == Layer::kDefault ? 0 : defined_by] = definition->rollout_bps;
      }
      for (int l = 0; l < kLayers; ++l) {
        const auto values = layers[static_cast<Layer>(l)].values.find(key);
        if (values == layers[static_cast<Layer>(l)].values.end()) continue;
        const auto& [on, bps, ignored1, ignored2] = values->second;
        // Its own layer's definition is overruled as well, and that is a word of its own.
        if (on) expected_inert += enabled.contains(l) && l > 0;
        if (on) enabled[l] = *on;
        if (bps) expected_inert += rollout.contains(l) && l > 0;
        if (bps) rollout[l] = *bps;
      }
      for (const auto& [l, value] : enabled)
        expected_inert += l > 0 && (definition == nullptr || l != enabled.rbegin()->first);
      for (const auto& [l, value] : rollout)
        expected_inert += l > 0 && (definition == nullptr || l != rollout.rbegin()->first);
      if (definition == nullptr) {
        expected_inert += enabled.contains(0) + rollout.contains(0);  // nobody's default
        continue;
      }
      ++expected_flags;
      const auto found =
          std::find_if(merged.flags.begin(), merged.flags.end(), [&](const Flag& f) { return f.key == key; });
      ASSERT_NE(found, merged.flags.end()) << "round " << round;
      ASSERT_EQ(found->definition_layer, static_cast<Layer>(defined_by)) << "round " << round;
      ASSERT_EQ(found->enabled, enabled.rbegin()->second) << "round " << round;
      ASSERT_EQ(found->layer, static_cast<Layer>(enabled.rbegin()->first)) << "round " << round;
      ASSERT_EQ(found->rollout_bps, rollout.rbegin()->second) << "round " << round;
      ASSERT_EQ(found->rollout_layer, static_cast<Layer>(rollout.rbegin()->first)) << "round " << round;
    }
    ASSERT_EQ(merged.flags.size(), expected_flags) << "round " << round;
    ASSERT_EQ(merged.inert.size(), expected_inert) << "round " << round;
  }
}

}  // namespace
}  // namespace sluice::flags
