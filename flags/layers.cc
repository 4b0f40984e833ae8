#include "flags/layers.h"

#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace sluice::flags {
namespace {

// One layer's word on one field of a flag.
struct Given {
  Layer layer;
  std::string value;
  std::string by;
};

// Whoever is not the last one is inert. Defaults are no-one's word.
void NoteInert(const std::string& flag, std::string_view field, const std::vector<Given>& given, FlagSetSpec* out) {
  for (size_t i = 0; i + 1 < given.size(); ++i) {
    const Given& top = given.back();
    if (given[i].layer == Layer::kDefault) continue;
    out->inert.push_back({.flag = flag,
                          .field = std::string(field),
                          .layer = given[i].layer,
                          .value = given[i].value,
                          .held_by = top.layer,
                          .why = fmt::format("{}{}{} holds {}", LayerName(top.layer), top.by.empty() ? "" : " ", top.by,
                                             top.value.empty() ? "it" : top.value)});
  }
}

// A layer below the one that defines a flag has no say.
// The formats of programs have no word for these.
void KeepUntold(const Flag& below, Flag* flag) {
  flag->parent = below.parent;
  flag->dry_run = below.dry_run;
  flag->features = below.features;
}

void ApplyValues(const Layers& layers, Flag* flag, FlagSetSpec* out) {
  std::vector<Given> enabled = {{flag->layer, flag->enabled ? "true" : "false", ""}};
  std::vector<Given> rollout = {{flag->rollout_layer, PercentText(flag->rollout_bps), ""}};
  for (const auto& [layer, content] : layers) {
    const auto found = content.values.find(flag->key);
    if (found == content.values.end()) continue;
    const FlagValues& values = found->second;
    if (values.enabled) {
      const bool holds = layer >= flag->layer;
      if (holds) flag->enabled = *values.enabled;
      if (holds) flag->layer = layer;
      enabled.insert(holds ? enabled.end() : enabled.begin(),
                     {layer, *values.enabled ? "true" : "false", values.enabled_by});
    }
    if (values.rollout_bps) {
      const bool holds = layer >= flag->rollout_layer;
      if (holds) flag->rollout_bps = *values.rollout_bps;
      if (holds) flag->rollout_layer = layer;
      rollout.insert(holds ? rollout.end() : rollout.begin(),
                     {layer, PercentText(*values.rollout_bps), values.rollout_by});
    }
  }
  NoteInert(flag->key, "enabled", enabled, out);
  NoteInert(flag->key, "rollout_percentage", rollout, out);
}

}  // namespace

FlagSetSpec MergeLayers(const Layers& layers) {
  FlagSetSpec out;
  std::map<std::string, std::vector<Given>> defined;
  std::map<std::string, size_t> index;
  for (const auto& [layer, content] : layers) {
    out.kill_switch |= content.kill_switch;
    out.rollback_to_baseline |= content.rollback_to_baseline;
    std::map<std::string, size_t> own;  // a key that one layer gives twice stays twice: FlagSet::Create refuses it
    for (const Flag& flag : content.flags) {
      const bool again = !own.emplace(flag.key, 0).second;
      const auto [place, fresh] = index.emplace(flag.key, out.flags.size());
      if (fresh || again) {
        out.flags.push_back(flag);
      } else {
        const Flag below = std::exchange(out.flags[place->second], flag);
        if (flag.targeting != nullptr) KeepUntold(below, &out.flags[place->second]);
      }
      Flag& merged = again || fresh ? out.flags.back() : out.flags[place->second];
      merged.layer = merged.definition_layer = layer;
      if (merged.rollout_layer != Layer::kDefault) merged.rollout_layer = layer;
      if (!again) defined[flag.key].push_back({layer, "", ""});
    }
  }
  for (const auto& [flag, given] : defined) NoteInert(flag, "definition", given, &out);
  for (Flag& flag : out.flags) ApplyValues(layers, &flag, &out);
  for (const auto& [layer, content] : layers) {
    for (const auto& [flag, values] : content.values) {
      const auto unknown = [&out, &flag = flag, layer = layer](std::string field, std::string value) {
        out.inert.push_back({flag, std::move(field), layer, std::move(value), layer, "there is no such flag"});
      };
      if (index.contains(flag)) continue;
      if (values.enabled) unknown("enabled", *values.enabled ? "true" : "false");
      if (values.rollout_bps) unknown("rollout_percentage", PercentText(*values.rollout_bps));
    }
  }
  return out;
}

}  // namespace sluice::flags
