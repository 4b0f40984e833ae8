#include <algorithm>
#include <array>

#include "base/status.h"
#include "base/strings.h"
#include "config/config_loader.h"
#include "config/flag_targeting.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "flags/flag_faults.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

using flags::Flag;
using flags::Layer;
using flags::ParentShare;

constexpr std::string_view kMaster = flags::kPhase5;
constexpr std::string_view kTtft = flags::kTtftPipeline;
constexpr std::string_view kEmergency = "emergency";
constexpr size_t kMaxFlags = 256;

Flag BuiltIn(std::string_view key) {
  Flag flag{.key = std::string(key), .rollout_bps = flags::kBuckets};
  if (key != kMaster) flag.parent = kMaster;
  if (key == kTtft) flag.features = {{"warmup_queue", true}, {"speculation", false}, {"kv_prep", true}};
  flag.layer = flag.rollout_layer = flag.definition_layer = Layer::kDefault;
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

constexpr std::array<std::string_view, 12> kFlagKeys = {
    "enabled",      "rollout_percentage", "dry_run", "hash_seed", "hash_version", "parent",
    "parent_share", "variants",           "rules",   "allow",     "deny",         "schedule"};

void ReadFlag(Section section, Flag* flag) {
  section.Require("enabled", "true or false");
  section.Bool("enabled", &flag->enabled);
  if (section.PercentAsBps("rollout_percentage", &flag->rollout_bps) != Source::kDefault) {
    flag->rollout_layer = Layer::kFile;
  }
  section.Bool("dry_run", &flag->dry_run);
  section.Text("hash_seed", 128, &flag->salt);
  const bool versioned = section.Integer("hash_version", 1, 2, &flag->hash_version) != Source::kDefault;
  if (flag->key != kMaster) {
    section.Text("parent", 128, &flag->parent);
    section.Choice<ParentShare>("parent_share", {{"nested", ParentShare::kNested}, {"product", ParentShare::kProduct}},
                                &flag->parent_share);
  }
  if (flag->parent_share == ParentShare::kNested) {
    if (!versioned) flag->hash_version = 0;  // the parent's
  } else if (flag->salt.empty()) {
    flag->salt = flag->key;
  }
  ReadTargeting(section, flag);
  for (auto& [name, on] : flag->features) ReadFeature(section, name, &on);
  if (flag->key == kMaster || flag->key == kTtft || flag->key == flags::kQosPolicy) return;
  // Flags that this build does not know may bring sub-switches of their own, as maps: a bare word could be a typo.
  for (const YamlMember& member : section.members()) {
    const bool known = std::find(kFlagKeys.begin(), kFlagKeys.end(), member.key) != kFlagKeys.end();
    if (!known && section.IsMap(member.key)) ReadFeature(section, member.key, &flag->features[member.key]);
  }
}

void ReadFlags(Section& root, std::vector<Flag>* out) {
  std::vector<std::string> absent;
  for (const std::string_view key : {kMaster, kTtft, flags::kQosPolicy, kEmergency}) {
    if (!root.Has(key)) absent.emplace_back(key);
  }
  for (const YamlMember& member : root.members()) {
    const std::string& key = member.key;
    const bool seen = std::any_of(out->begin(), out->end(), [&](const Flag& flag) { return flag.key == key; });
    if (seen || key == kEmergency) continue;
    if (out->size() >= kMaxFlags) {
      root.Refuse(key, "one flag too many", fmt::format("{} flags", kMaxFlags));
      return;
    }
    Flag flag = BuiltIn(key);
    if (const std::optional<std::string> nearest = NearestName(key, absent)) {
      root.Refuse(key, fmt::format("unknown flag (did you mean {}?)", *nearest),
                  "phase5, ttft_pipeline, qos_policy, emergency, or a flag of your own with another name");
    } else if (!ParseName(key).value) {
      root.Refuse(key, "is not a name", kNameAllowed);
    } else {
      ReadFlag(root.Map(key), &flag);
    }
    out->push_back(std::move(flag));
  }
}

const YamlMember* Member(const YamlNode& map, std::string_view key) {
  const auto found =
      std::find_if(map.members.begin(), map.members.end(), [&](const YamlMember& m) { return m.key == key; });
  return found == map.members.end() ? nullptr : &*found;
}

// The line that a fault of the whole is about: of the key, else of the flag.
int LineOf(const YamlNode& root, const flags::FlagFault& fault) {
  const YamlMember* flag = Member(root, fault.flag);
  if (flag == nullptr) return 0;
  const size_t dot = fault.field.find('.');
  const YamlMember* field = Member(flag->value, fault.field.substr(0, dot));
  if (field == nullptr) return flag->line;
  for (const YamlNode& item : field->value.items) {  // rules.NAME
    const YamlMember* name = Member(item, "name");
    if (name != nullptr && dot != std::string::npos && name->value.text == fault.field.substr(dot + 1))
      return item.line;
  }
  return field->line;
}

// Rules that span keys, judged once each key is fit. The file must stand on its own, the default flags beside it.
void CheckWhole(const YamlNode& root, const flags::LayerContent& content, Faults& faults) {
  if (!faults.empty()) return;
  const flags::FlagSetSpec whole = flags::MergeLayers({{Layer::kDefault, DefaultFlags()}, {Layer::kFile, content}});
  for (const flags::FlagFault& fault : flags::FindFlagFaults(whole.flags)) {
    faults.Add(LineOf(root, fault), fmt::format("{}.{}", fault.flag, fault.field), fault.what, fault.allowed);
  }
}

}  // namespace

flags::LayerContent DefaultFlags() {
  flags::LayerContent out;
  for (const std::string_view key : {kMaster, kTtft, flags::kQosPolicy}) {
    out.flags.push_back(BuiltIn(key));
    out.flags.back().salt = key;
  }
  return out;
}

absl::StatusOr<flags::LayerContent> LoadFlagFile(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode file, LoadYamlFile(path));
  Faults faults(path);
  flags::LayerContent content;
  // A file cut to nothing must not switch everything off.
  if (file.kind == YamlNode::Kind::kNull) faults.Add(0, "", "is empty", "flags, or {} for the defaults");
  {
    Section root(&file, file.line, "", faults, nullptr);
    ReadFlags(root, &content.flags);
    Section emergency = root.Map(kEmergency);
    emergency.Bool("kill_switch", &content.kill_switch);
    emergency.Bool("rollback_to_baseline", &content.rollback_to_baseline);
  }
  CheckWhole(file, content, faults);
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return content;
}

absl::StatusOr<flags::LayerContent> LoadFlagVariables(const Environment& env) {
  constexpr const char* kPercent = "PHASE5_ROLLOUT_PERCENT";
  const std::pair<const char*, std::string_view> kSwitches[] = {
      {"PHASE5_ENABLED", kMaster}, {"PHASE5_TTFT_ENABLED", kTtft}, {"PHASE5_QOS_ENABLED", flags::kQosPolicy}};
  Faults faults("");
  Variables variables(env, faults);
  flags::LayerContent content;
  for (const auto& [variable, flag] : kSwitches) {
    bool enabled = false;
    if (!variables.ReadBool(variable, &enabled)) continue;
    content.values[std::string(flag)].enabled = enabled;
    content.values[std::string(flag)].enabled_by = variable;
  }
  variables.Read(kPercent, "0 to 100 (percent) in steps of 0.01", [&](std::string_view text, Source) {
    const Parsed<uint32_t> parsed = ParsePercentAsBps(text);
    if (!parsed.value) return parsed.what;
    flags::FlagValues& values = content.values[std::string(kMaster)];
    values.rollout_bps = parsed.value;
    values.rollout_by = kPercent;
    return std::string();
  });
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return content;
}

absl::StatusOr<flags::Layers> LoadFlagLayers(const std::string& path, const Environment& env) {
  auto file = LoadFlagFile(path);
  auto variables = LoadFlagVariables(env);
  if (!file.ok() && !variables.ok()) {
    return absl::Status(file.status().code(),
                        fmt::format("{}\n{}", ToStd(file.status().message()), ToStd(variables.status().message())));
  }
  if (!file.ok()) return file.status();
  if (!variables.ok()) return variables.status();
  return flags::Layers{
      {Layer::kDefault, DefaultFlags()}, {Layer::kFile, *std::move(file)}, {Layer::kEnv, *std::move(variables)}};
}

absl::StatusOr<flags::FlagSetSpec> LoadFlagSpec(const std::string& path, const Environment& env) {
  SLUICE_ASSIGN_OR_RETURN(const flags::Layers layers, LoadFlagLayers(path, env));
  return flags::MergeLayers(layers);
}

}  // namespace sluice::config
