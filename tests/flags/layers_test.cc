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

constexpr int kLayers = static_cast<int>(Layer::kEmergency) + 1;

Layers RandomLayers(std::mt19937& random) {
  const auto below = [&](uint32_t n) { return random() % n; };
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
  return layers;
}

// The sentence "the highest layer that says something holds", written down as plainly as it is: what each layer says
// about one flag, by the layer's number; the last one holds. A later word of the same layer replaces its earlier one.
struct Words {
  std::map<int, bool> enabled;
  std::map<int, RolloutBps> rollout;
  int defined_by = -1;
  size_t inert = 0;  // words that do not hold, but those of the default layer
};

Words ReferenceModel(const Layers& layers, const std::string& key) {
  Words out;
  const Flag* definition = nullptr;
  for (const auto& [layer, content] : layers) {
    for (const Flag& flag : content.flags) {
      if (flag.key != key) continue;
      out.inert += out.defined_by > 0;
      definition = &flag;
      out.defined_by = static_cast<int>(layer);
    }
  }
  if (definition != nullptr) {
    out.enabled[out.defined_by] = definition->enabled;
    out.rollout[definition->rollout_layer == Layer::kDefault ? 0 : out.defined_by] = definition->rollout_bps;
  }
  const auto say = [&](auto& words, int layer, auto value) {
    if (!value) return;
    out.inert += words.contains(layer) && layer > 0;
    words[layer] = *value;
  };
  for (const auto& [layer, content] : layers) {
    const auto values = content.values.find(key);
    if (values == content.values.end()) continue;
    say(out.enabled, static_cast<int>(layer), values->second.enabled);
    say(out.rollout, static_cast<int>(layer), values->second.rollout_bps);
  }
  const auto count = [&](const auto& words) {
    for (const auto& [layer, value] : words) {
      out.inert += definition == nullptr || (layer > 0 && layer != words.rbegin()->first);
    }
  };
  count(out.enabled);
  count(out.rollout);
  return out;
}

TEST(LayersTest, PrecedenceAgreesWithTheReferenceModel) {
  constexpr uint32_t kSeed = 20260705;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 2000; ++round) {
    SCOPED_TRACE(round);
    const Layers layers = RandomLayers(random);
    const FlagSetSpec merged = MergeLayers(layers);
    size_t flags = 0, inert = 0;
    for (const std::string key : {"a", "b"}) {
      const Words words = ReferenceModel(layers, key);
      inert += words.inert;
      if (words.defined_by < 0) continue;
      ++flags;
      const auto found =
          std::find_if(merged.flags.begin(), merged.flags.end(), [&](const Flag& f) { return f.key == key; });
      ASSERT_NE(found, merged.flags.end());
      ASSERT_EQ(found->definition_layer, static_cast<Layer>(words.defined_by));
      ASSERT_EQ(found->enabled, words.enabled.rbegin()->second);
      ASSERT_EQ(found->layer, static_cast<Layer>(words.enabled.rbegin()->first));
      ASSERT_EQ(found->rollout_bps, words.rollout.rbegin()->second);
      ASSERT_EQ(found->rollout_layer, static_cast<Layer>(words.rollout.rbegin()->first));
    }
    ASSERT_EQ(merged.flags.size(), flags);
    ASSERT_EQ(merged.inert.size(), inert);
  }
}

}  // namespace
}  // namespace sluice::flags
