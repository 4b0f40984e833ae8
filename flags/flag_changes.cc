#include "flags/flag_changes.h"

#include <map>
#include <memory>
#include <utility>

#include "flags/md5.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::flags {
namespace {

using Fields = std::map<std::string, std::string>;

// The sum of the keys' digests does not depend on their order.
std::string KeysText(const std::shared_ptr<const KeySet>& keys) {
  if (keys == nullptr) return "";
  uint64_t sum = 0;
  for (const std::string& key : *keys) {
    const Md5Digest digest = Md5(key);
    for (size_t i = 0; i < 8; ++i) sum += uint64_t{digest[i]} << (8 * i);
  }
  return fmt::format("{} keys #{:016x}", keys->size(), sum);
}

std::string RulesText(const std::vector<Rule>& rules) {
  std::string out;
  for (const Rule& rule : rules) {
    out += fmt::format("{}{}: ", out.empty() ? "" : "; ", rule.name);
    for (const Condition& condition : rule.when) {
      out += fmt::format("{}{}{}{}", &condition == rule.when.data() ? "" : " and ", Describe(condition),
                         condition.values == nullptr ? "" : " ", KeysText(condition.values));
    }
    out += " -> " + DescribeThen(rule);
  }
  return out;
}

std::string VariantsText(const std::vector<Variant>& variants) {
  std::string out;
  for (const Variant& variant : variants) {
    out += fmt::format("{}{} {} {}", out.empty() ? "" : ", ", variant.name, variant.weight, variant.value->dump());
  }
  return out;
}

std::string Held(std::string_view value, Layer layer) { return fmt::format("{} ({})", value, LayerName(layer)); }

Fields FieldsOf(const Flag& flag) {
  Fields out = {{"enabled", Held(flag.enabled ? "true" : "false", flag.layer)},
                {"rollout_percentage", Held(PercentText(flag.rollout_bps), flag.rollout_layer)},
                {"definition", std::string(LayerName(flag.definition_layer))},
                {"dry_run", flag.dry_run ? "true" : "false"},
                {"hash_seed", flag.salt},
                {"hash_version", std::to_string(flag.hash_version)},
                {"parent", flag.parent},
                {"parent_share", flag.parent_share == ParentShare::kNested ? "nested" : "product"},
                {"schedule.start", flag.schedule.start ? TimeText(*flag.schedule.start) : ""},
                {"schedule.end", flag.schedule.end ? TimeText(*flag.schedule.end) : ""},
                {"variants", VariantsText(flag.variants)},
                {"rules", RulesText(flag.rules)},
                {"allow", KeysText(flag.allow)},
                {"deny", KeysText(flag.deny)}};
  for (const auto& [name, on] : flag.features) out[name] = on ? "true" : "false";
  if (flag.targeting != nullptr) out["program"] = fmt::format("{}", fmt::ptr(flag.targeting.get()));
  return out;
}

std::map<std::string, Fields> Texts(const FlagSetSpec& spec) {
  std::map<std::string, Fields> out;
  for (const Flag& flag : spec.flags) out[flag.key] = FieldsOf(flag);
  for (const InertValue& inert : spec.inert) {
    out[inert.flag][fmt::format("{} of {}", inert.field, LayerName(inert.layer))] =
        fmt::format("{}{}inert: {}", inert.value, inert.value.empty() ? "" : " ", inert.why);
  }
  out["emergency"]["kill_switch"] = spec.kill_switch ? "true" : "false";
  out["emergency"]["rollback_to_baseline"] = spec.rollback_to_baseline ? "true" : "false";
  return out;
}

Layer HolderOf(const FlagSetSpec& spec, const std::string& flag, const std::string& field) {
  if (flag == "emergency") return Layer::kEmergency;
  for (const InertValue& inert : spec.inert) {
    if (inert.flag == flag && field.starts_with(inert.field + " of ")) return inert.held_by;
  }
  for (const Flag& f : spec.flags) {
    if (f.key == flag)
      return field == "enabled" ? f.layer : field == "rollout_percentage" ? f.rollout_layer : f.definition_layer;
  }
  return Layer::kDefault;
}

}  // namespace

std::vector<FlagChange> FindChanges(const FlagSetSpec& before, const FlagSetSpec& after) {
  const std::map<std::string, Fields> old_texts = Texts(before), new_texts = Texts(after);
  std::map<std::string, Fields> all = new_texts;
  for (const auto& [flag, fields] : old_texts) all[flag].insert(fields.begin(), fields.end());
  const auto find = [](const std::map<std::string, Fields>& texts, const std::string& flag, const std::string& field) {
    const auto fields = texts.find(flag);
    if (fields == texts.end()) return std::string();
    const auto text = fields->second.find(field);
    return text == fields->second.end() ? std::string() : text->second;
  };
  std::vector<FlagChange> changes;
  for (const auto& [flag, fields] : all) {
    for (const auto& [field, ignored] : fields) {
      std::string was = find(old_texts, flag, field), is = find(new_texts, flag, field);
      if (was == is) continue;
      if (field == "program") {  // addresses are nobody's business
        is = is.empty() ? "" : was.empty() ? "a program" : "another program";
        was = was.empty() ? "" : "a program";
      }
      changes.push_back({flag, field, std::move(was), std::move(is), HolderOf(after, flag, field)});
    }
  }
  return changes;
}

std::vector<FlagChange> FindScheduleChanges(const FlagSet& set, WallTime after, WallTime until) {
  std::vector<FlagChange> changes;
  if (!set.CrossesSchedule(after, until)) return changes;
  for (const Flag& flag : set.flags()) {
    const bool was = flag.schedule.Contains(after), is = flag.schedule.Contains(until);
    const auto text = [](bool inside) { return inside ? "inside" : "outside"; };
    if (was != is && after < until)
      changes.push_back({flag.key, "schedule", text(was), text(is), flag.definition_layer});
  }
  return changes;
}

}  // namespace sluice::flags
