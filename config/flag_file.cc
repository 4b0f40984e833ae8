#include <algorithm>
#include <array>

#include "base/status.h"
#include "config/config_loader.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

using flags::Flag;
using flags::Layer;

constexpr std::string_view kMaster = "phase5";
constexpr std::string_view kTtft = "ttft_pipeline";
constexpr std::string_view kEmergency = "emergency";
constexpr size_t kMaxFlags = 256;

Flag BuiltIn(std::string_view key, Layer layer) {
  Flag flag{.key = std::string(key), .rollout_bps = flags::kBuckets, .salt = std::string(key)};
  if (key != kMaster) flag.parent = kMaster;
  if (key == kTtft) flag.features = {{"warmup_queue", true}, {"speculation", false}, {"kv_prep", true}};
  flag.layer = flag.rollout_layer = layer;
  return flag;
}

// `name: true` or `name: {enabled: true}`, as the ancestor wrote it.
void ReadFeature(Section& section, const std::string& name, bool* on) {
  if (!section.IsMap(name)) {
    section.Bool(name, on);
    return;
  }
  Section map = section.Map(name);
  map.Require("enabled", "true or false");
  map.Bool("enabled", on);
}

void ReadFlag(Section section, Flag* flag) {
  section.Require("enabled", "true or false");
  section.Bool("enabled", &flag->enabled);
  if (section.PercentAsBps("rollout_percentage", &flag->rollout_bps) == Source::kDefault) {
    flag->rollout_layer = Layer::kDefault;
  }
  section.Bool("dry_run", &flag->dry_run);
  section.Text("hash_seed", 128, &flag->salt);
  section.Integer("hash_version", 1, 2, &flag->hash_version);
  for (auto& [name, on] : flag->features) ReadFeature(section, name, &on);
  if (flag->key == kMaster || flag->key == kTtft || flag->key == "qos_policy") return;
  // Flags that this build does not know may bring sub-switches of their own, as maps: a bare word could be a typo.
  for (const YamlMember& member : section.members()) {
    const bool known = member.key == "enabled" || member.key == "rollout_percentage" || member.key == "dry_run" ||
                       member.key == "hash_seed" || member.key == "hash_version";
    if (!known && section.IsMap(member.key)) ReadFeature(section, member.key, &flag->features[member.key]);
  }
}

void ReadFlags(Section& root, std::vector<Flag>* out) {
  std::vector<std::string> absent;
  for (const std::string_view key : {kMaster, kTtft, std::string_view("qos_policy"), kEmergency}) {
    if (!root.Has(key)) absent.emplace_back(key);
    if (key != kEmergency) out->push_back(BuiltIn(key, root.Has(key) ? Layer::kFile : Layer::kDefault));
  }
  for (Flag& flag : *out) {
    if (root.Has(flag.key)) ReadFlag(root.Map(flag.key), &flag);
  }
  for (const YamlMember& member : root.members()) {
    const std::string& key = member.key;
    const bool seen = std::any_of(out->begin(), out->end(), [&](const Flag& flag) { return flag.key == key; });
    if (seen || key == kEmergency) continue;
    if (out->size() >= kMaxFlags) {
      root.Refuse(key, "one flag too many", fmt::format("{} flags", kMaxFlags));
      return;
    }
    Flag flag = BuiltIn(key, Layer::kFile);
    if (const std::optional<std::string> nearest = NearestName(key, absent)) {
      root.Refuse(key, fmt::format("unknown flag (did you mean {}?)", *nearest),
                  "phase5, ttft_pipeline, qos_policy, emergency, or a flag of your own with another name");
    } else if (!ParseName(key).value) {
      root.Refuse(key, "is not a name", "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -");
    } else {
      ReadFlag(root.Map(key), &flag);
    }
    out->push_back(std::move(flag));
  }
}

void ApplyVariables(Variables& variables, std::vector<Flag>* flags) {
  constexpr std::array<const char*, 3> kNames = {"PHASE5_ENABLED", "PHASE5_TTFT_ENABLED", "PHASE5_QOS_ENABLED"};
  for (size_t i = 0; i < kNames.size(); ++i) {  // the built-in flags come first, in this order
    Flag& flag = (*flags)[i];
    if (variables.ReadBool(kNames[i], &flag.enabled)) flag.layer = Layer::kEnv;
  }
  Flag& master = flags->front();
  const bool set = variables.Read("PHASE5_ROLLOUT_PERCENT", "0 to 100 (percent) in steps of 0.01",
                                  [&](std::string_view text, Source) {
                                    const Parsed<uint32_t> parsed = ParsePercentAsBps(text);
                                    if (parsed.value) master.rollout_bps = *parsed.value;
                                    return parsed.what;
                                  });
  if (set) master.rollout_layer = Layer::kEnv;
}

}  // namespace

absl::StatusOr<flags::FlagSetSpec> LoadFlagSpec(const std::string& path, const Environment& env) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode file, LoadYamlFile(path));
  Faults faults(path);
  Variables variables(env, faults);
  flags::FlagSetSpec spec;
  // A file cut to nothing must not switch everything off.
  if (file.kind == YamlNode::Kind::kNull) faults.Add(0, "", "is empty", "flags, or {} for the defaults");
  {
    Section root(&file, file.line, "", faults, nullptr);
    ReadFlags(root, &spec.flags);
    Section emergency = root.Map(kEmergency);
    emergency.Bool("kill_switch", &spec.kill_switch);
    emergency.Bool("rollback_to_baseline", &spec.rollback_to_baseline);
    ApplyVariables(variables, &spec.flags);
  }
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return spec;
}

}  // namespace sluice::config
