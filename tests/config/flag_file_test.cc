#include "config/config_loader.h"
#include "nlohmann/json.hpp"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using flags::Flag;
using flags::Layer;
using test::IsOk;
using test::StatusIs;
using testing::ElementsAre;
using testing::Pair;

absl::StatusOr<flags::FlagSetSpec> Load(const std::string& text, const TestVariables& variables = {}) {
  const TestFile file(text);
  return LoadFlagSpec(file.path(), Env(variables));
}

std::vector<std::string> FaultsOf(const std::string& text, const TestVariables& variables = {}) {
  const TestFile file(text);
  return file.Lines(LoadFlagSpec(file.path(), Env(variables)).status());
}

const Flag& Find(const absl::StatusOr<flags::FlagSetSpec>& spec, const std::string& key) {
  for (const Flag& flag : spec->flags) {
    if (flag.key == key) return flag;
  }
  ADD_FAILURE() << "no flag " << key;
  return spec->flags.front();
}

TEST(LoadFlagSpec, ReadsTheSeedsFile) {
  const auto spec = Load(R"(
phase5:
  enabled: true
  rollout_percentage: 10

ttft_pipeline:
  enabled: true
  rollout_percentage: 100

qos_policy:
  enabled: true
  dry_run: true  # Log actions without executing
)");
  ASSERT_THAT(spec, IsOk());
  ASSERT_EQ(spec->flags.size(), 3u);
  const Flag& phase5 = Find(spec, "phase5");
  EXPECT_TRUE(phase5.enabled);
  EXPECT_EQ(phase5.rollout_bps, 1000u);
  EXPECT_EQ(phase5.salt, "phase5");
  EXPECT_EQ(phase5.hash_version, 2);
  EXPECT_EQ(phase5.parent, "");
  EXPECT_EQ(phase5.layer, Layer::kFile);
  EXPECT_EQ(phase5.rollout_layer, Layer::kFile);
  const Flag& ttft = Find(spec, "ttft_pipeline");
  EXPECT_EQ(ttft.parent, "phase5");
  EXPECT_THAT(ttft.features,
              ElementsAre(Pair("kv_prep", true), Pair("speculation", false), Pair("warmup_queue", true)));
  const Flag& qos = Find(spec, "qos_policy");
  EXPECT_TRUE(qos.dry_run);
  EXPECT_EQ(qos.rollout_bps, 10000u);  // everybody, unless the file says less
  EXPECT_EQ(qos.rollout_layer, Layer::kDefault);
  EXPECT_FALSE(spec->kill_switch);
  EXPECT_FALSE(spec->rollback_to_baseline);
}

TEST(LoadFlagSpec, SeedsHashesAndEmergency) {
  const auto spec = Load(R"(
phase5: {enabled: true, rollout_percentage: 33, hash_seed: "ttft-pipeline-2025-01-08", hash_version: 1}
emergency: {kill_switch: true, rollback_to_baseline: true}
)");
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(spec->flags[0].rollout_bps, 3300u);
  EXPECT_EQ(spec->flags[0].salt, "ttft-pipeline-2025-01-08");
  EXPECT_EQ(spec->flags[0].hash_version, 1);
  EXPECT_TRUE(spec->kill_switch);
  EXPECT_TRUE(spec->rollback_to_baseline);
}

TEST(LoadFlagSpec, FeaturesAsMapOrWord) {
  const auto spec = Load(
      "ttft_pipeline: {enabled: true, warmup_queue: false, kv_prep: {enabled: false}, "
      "speculation: {enabled: true}}");
  ASSERT_THAT(spec, IsOk());
  EXPECT_THAT(Find(spec, "ttft_pipeline").features,
              ElementsAre(Pair("kv_prep", false), Pair("speculation", true), Pair("warmup_queue", false)));
}

TEST(LoadFlagSpec, AbsentFlagsAreOffButKnown) {
  const auto spec = Load("{}");
  ASSERT_THAT(spec, IsOk());
  ASSERT_EQ(spec->flags.size(), 3u);
  for (const Flag& flag : spec->flags) {
    EXPECT_FALSE(flag.enabled) << flag.key;
    EXPECT_EQ(flag.layer, Layer::kDefault) << flag.key;
  }
}

TEST(LoadFlagSpec, OtherFlagsOfTheSameShape) {
  const auto spec = Load(
      "phase5: {enabled: true}\nphase6: {enabled: true, rollout_percentage: 0.01, "
      "batching: {enabled: true}}\n");
  ASSERT_THAT(spec, IsOk());
  const Flag& other = Find(spec, "phase6");
  EXPECT_EQ(other.rollout_bps, 1u);
  EXPECT_EQ(other.salt, "phase6");
  EXPECT_EQ(other.parent, "phase5");
  EXPECT_THAT(other.features, ElementsAre(Pair("batching", true)));
}

TEST(LoadFlagSpec, ReadsEveryKeyOfTargeting) {
  const auto spec = LoadFlagSpec("tests/config/flag_samples/good/everything.yaml", nullptr);
  ASSERT_THAT(spec, IsOk());
  const Flag& flag = Find(spec, "prompt_size");
  EXPECT_EQ(flag.parent, "");
  ASSERT_EQ(flag.variants.size(), 3u);
  EXPECT_EQ(flag.variants[0].value->dump(), R"({"names":["a","b"],"tokens":128})");
  EXPECT_EQ(*flag.variants[1].value, "large") << "the name, unless it says more";
  EXPECT_EQ(flag.variants[1].weight, 70u);
  EXPECT_EQ(flag.variants[2].name, "off");
  EXPECT_EQ(*flag.variants[2].value, false);
  ASSERT_EQ(flag.rules.size(), 4u);
  std::vector<std::string> rules;
  for (const flags::Rule& rule : flag.rules) {
    std::string text = rule.name;
    for (const flags::Condition& condition : rule.when) text += " | " + flags::Describe(condition);
    rules.push_back(text + " -> " + flags::DescribeThen(rule));
  }
  EXPECT_THAT(rules, ElementsAre("eu-batch | tenant prefix \"eu-\" | class in (2 values) -> out",
                                 "new-clients | header:x-app-version semver ^1.4.0 !=1.4.2 -> variant large",
                                 "some-tenants | tenant percentage 12.5 % -> 80 %",
                                 "one-key | key equals \"alice\" | model equals \"m\" | user equals \"alice\" -> in"));
  EXPECT_TRUE(flag.allow->contains("bob@example.com"));
  EXPECT_EQ(flag.deny->size(), 1u);
  EXPECT_THAT(flag.features, ElementsAre(Pair("extra", true)));
  EXPECT_EQ(Find(spec, "ttft_pipeline").parent_share, flags::ParentShare::kNested);
  const flags::Schedule& schedule = Find(spec, "qos_policy").schedule;
  EXPECT_EQ(flags::TimeText(*schedule.start), "2026-01-01T00:00:00Z");
  EXPECT_EQ(flags::TimeText(*schedule.end), "2026-12-31T21:59:59.500000000Z");
  EXPECT_EQ(Find(spec, "qos_policy").parent, "ttft_pipeline");

  const auto set = flags::FlagSet::Create(*spec, 1);
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ((*set)->Find("ttft_pipeline")->salt, "2026") << "nested: the parent's";
}

TEST(LoadFlagSpec, TenThousandKeysFitInAList) {
  std::string text = "mine:\n  enabled: true\n  allow:\n";
  for (int i = 0; i < 10000; ++i) text += "    - user-" + std::to_string(i) + "\n";
  const auto spec = Load(text);
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(Find(spec, "mine").allow->size(), 10000u);
  EXPECT_THAT(FaultsOf(text + "    - one-more\n"),
              ElementsAre("f.yaml:3: mine.allow: has too many entries; allowed: a list of at most 10000 entries"));
}

TEST(LoadFlagSpec, BombsAndLargeFilesAreRefused) {
  EXPECT_THAT(FaultsOf("a: &a {enabled: true}\nb: *a\n"),
              ElementsAre("f.yaml:2: syntax: an alias (*name); allowed: the value written out"));
  EXPECT_THAT(FaultsOf(std::string((1 << 20) + 1, '#')),
              ElementsAre("f.yaml: larger than 1 MiB; allowed: at most 1 MiB"));
}

TEST(LoadFlagLayers, EachSourceIsALayerOfItsOwn) {
  const TestFile file("phase5: {enabled: true, rollout_percentage: 50}\nemergency: {rollback_to_baseline: true}\n");
  const TestVariables variables = {{"PHASE5_ROLLOUT_PERCENT", "10"}};
  const auto layers = LoadFlagLayers(file.path(), Env(variables));
  ASSERT_THAT(layers, IsOk());
  EXPECT_EQ(layers->at(Layer::kDefault).flags.size(), 3u);
  EXPECT_EQ(layers->at(Layer::kFile).flags.size(), 1u);
  EXPECT_TRUE(layers->at(Layer::kFile).rollback_to_baseline);
  EXPECT_EQ(layers->at(Layer::kEnv).values.at("phase5").rollout_bps, 1000u);
  std::vector<std::string> inert;
  for (const auto& value : flags::MergeLayers(*layers).inert) inert.push_back(flags::Describe(value));
  EXPECT_THAT(inert,
              ElementsAre("file rollout_percentage 50 % of phase5 is inert: env PHASE5_ROLLOUT_PERCENT holds 10 %"));
}

TEST(LoadFlagLayers, FaultsOfFileAndVariablesComeTogether) {
  EXPECT_THAT(FaultsOf("phase5: 1\n", {{"PHASE5_ENABLED", "yep"}}),
              ElementsAre(testing::StartsWith("f.yaml:1: phase5"), testing::StartsWith("environment: PHASE5_ENABLED")));
}

TEST(LoadFlagSpec, VariablesBecomeTheEnvLayer) {
  const auto spec = Load("phase5: {enabled: false, rollout_percentage: 100}\nttft_pipeline: {enabled: true}",
                         {{"PHASE5_ENABLED", "true"},
                          {"PHASE5_TTFT_ENABLED", "0"},
                          {"PHASE5_QOS_ENABLED", "on"},
                          {"PHASE5_ROLLOUT_PERCENT", "12.34"}});
  ASSERT_THAT(spec, IsOk());
  const Flag& phase5 = Find(spec, "phase5");
  EXPECT_TRUE(phase5.enabled);
  EXPECT_EQ(phase5.rollout_bps, 1234u);
  EXPECT_EQ(phase5.layer, Layer::kEnv);
  EXPECT_EQ(phase5.rollout_layer, Layer::kEnv);
  EXPECT_FALSE(Find(spec, "ttft_pipeline").enabled);
  EXPECT_EQ(Find(spec, "ttft_pipeline").layer, Layer::kEnv);
  EXPECT_EQ(Find(spec, "ttft_pipeline").rollout_layer, Layer::kDefault);
  EXPECT_TRUE(Find(spec, "qos_policy").enabled);  // absent in the file
}

TEST(LoadFlagSpec, BadVariablesAreNamed) {
  EXPECT_THAT(
      FaultsOf("{}", {{"PHASE5_ENABLED", "yep"}, {"PHASE5_ROLLOUT_PERCENT", "101"}}),
      ElementsAre("environment: PHASE5_ENABLED: \"yep\" is not a boolean; allowed: true, false, 1, 0, yes, no, "
                  "on or off",
                  "environment: PHASE5_ROLLOUT_PERCENT: \"101\" is out of range; allowed: 0 to 100 (percent) in "
                  "steps of 0.01"));
}

TEST(LoadFlagSpec, Faults) {
  EXPECT_THAT(FaultsOf("phase5: true\nttft_pipeline:\n  rollout_percentage: 0.005\n  hash_version: 3\n"),
              ElementsAre("f.yaml:1: phase5: is a single value; allowed: a map of keys and values",
                          "f.yaml:2: ttft_pipeline.enabled: is missing; allowed: true or false",
                          "f.yaml:3: ttft_pipeline.rollout_percentage: \"0.005\" has more than two decimals; allowed: "
                          "0 to 100 (percent) in steps of 0.01",
                          "f.yaml:4: ttft_pipeline.hash_version: \"3\" is out of range; allowed: a whole number from 1 "
                          "to 2"));
  EXPECT_THAT(FaultsOf("ttft_pipline: {enabled: true}\n"),
              ElementsAre("f.yaml:1: ttft_pipline: unknown flag (did you mean ttft_pipeline?); allowed: phase5, "
                          "ttft_pipeline, qos_policy, emergency, or a flag of your own with another name"));
  EXPECT_THAT(FaultsOf("qos_policy: {enabled: true, dryrun: true}\n"),
              ElementsAre("f.yaml:1: qos_policy.dryrun: unknown key (did you mean dry_run?); allowed: allow, deny, "
                          "dry_run, enabled, hash_seed, hash_version, parent, parent_share, rollout_percentage, rules, "
                          "schedule, variants"));
  EXPECT_THAT(FaultsOf("mine: {enabled: true, enabeld: true}\n"),
              ElementsAre("f.yaml:1: mine.enabeld: unknown key (did you mean enabled?); allowed: allow, deny, "
                          "dry_run, enabled, hash_seed, hash_version, parent, parent_share, rollout_percentage, "
                          "rules, schedule, variants"));
  EXPECT_THAT(FaultsOf("phase5: {enabled: true}\nphase5: {enabled: false}\n"),
              ElementsAre("f.yaml:2: phase5: given twice (first in line 1); allowed: once"));
  EXPECT_THAT(FaultsOf("\"my flag\": {enabled: true}\n"),
              ElementsAre("f.yaml:1: \"my flag\": is not a name; allowed: 1 to 128 characters of A-Z a-z 0-9 . _ : / @ "
                          "+ -"));
  EXPECT_THAT(FaultsOf("emergency: {killswitch: true}\n"),
              ElementsAre("f.yaml:1: emergency.killswitch: unknown key (did you mean kill_switch?); allowed: "
                          "kill_switch, rollback_to_baseline"));
}

TEST(LoadFlagSpec, AnEmptyOrMissingFileIsRefused) {
  EXPECT_THAT(FaultsOf(""), ElementsAre("f.yaml: is empty; allowed: flags, or {} for the defaults"));
  EXPECT_THAT(LoadFlagSpec("no/such.yaml", nullptr), StatusIs(absl::StatusCode::kNotFound));
}

TEST(LoadFlagSpec, ManyFlagsAreBounded) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "other" + std::to_string(i) + ": {enabled: true}\n";
  const std::vector<std::string> faults = FaultsOf(text);
  ASSERT_EQ(faults.size(), 101u);
  EXPECT_THAT(faults, testing::Contains("f.yaml:257: other256: one flag too many; allowed: 256 flags"));
}

}  // namespace
}  // namespace sluice::config
