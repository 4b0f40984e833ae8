#include "config/flag_targeting.h"

#include <algorithm>
#include <cctype>
#include <memory>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

namespace sluice::config {
namespace {

using flags::Condition;
using flags::KeySet;
using flags::Rule;
using flags::Variant;

constexpr size_t kMaxKeys = 10'000, kMaxKeyBytes = 256;
constexpr size_t kMaxRules = 100, kMaxConditions = 16, kMaxVariants = 64;
constexpr int64_t kMaxWeight = 10'000;
constexpr std::string_view kHeaderPrefix = "header:";
constexpr std::string_view kVersions =
    "^1.2.3, ~1.2.3, <, <=, >, >=, = or != and a version, several with a space between";

// Plain text as JSON reads it; text in quotes stays text. False: a part has no value.
bool ToJson(const YamlNode& node, nlohmann::json* out) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return false;
    case YamlNode::Kind::kScalar:
      if (!node.quoted && (node.text == "true" || node.text == "false")) {
        *out = node.text == "true";
      } else if (const auto whole = ParseInteger(node.text, INT64_MIN, INT64_MAX); !node.quoted && whole.value) {
        *out = *whole.value;
      } else if (const auto number = ParseNumber(node.text, -1e308, 1e308); !node.quoted && number.value) {
        *out = *number.value;
      } else {
        *out = node.text;
      }
      return true;
    case YamlNode::Kind::kList:
      *out = nlohmann::json::array();
      return std::all_of(node.items.begin(), node.items.end(), [&](const YamlNode& item) {
        out->emplace_back();
        return ToJson(item, &out->back());
      });
    case YamlNode::Kind::kMap:
      *out = nlohmann::json::object();
      return std::all_of(node.members.begin(), node.members.end(), [&](const YamlMember& member) {
        return !out->contains(member.key) && ToJson(member.value, &(*out)[member.key]);
      });
  }
  return false;
}

void ReadVariants(Section section, std::vector<Variant>* out) {
  if (section.members().size() > kMaxVariants) {
    section.Fault(section.members()[kMaxVariants].key, "one variant too many",
                  fmt::format("{} variants", kMaxVariants));
  }
  for (const YamlMember& member : section.members()) {
    const std::string& name = member.key;
    if (!ParseName(name).value) {
      section.Refuse(name, "is not a name", kNameAllowed);
      continue;
    }
    Section one = section.Map(name);
    Variant variant{.name = name};
    nlohmann::json value = name;
    if (const YamlNode* node = one.Value("value");
        node != nullptr && (node->kind == YamlNode::Kind::kList || !ToJson(*node, &value))) {
      one.Fault("value", "is a list, or a part of it has no value or is given twice",
                "a boolean, a number, text or a map");
    }
    variant.value = std::make_shared<const nlohmann::json>(std::move(value));
    one.Integer("weight", 0, kMaxWeight, &variant.weight);
    out->push_back(std::move(variant));
  }
}

void ReadKeys(Section& section, std::string_view key, std::shared_ptr<const KeySet>* out) {
  std::vector<std::string> keys;
  if (section.Texts(key, kMaxKeys, kMaxKeyBytes, &keys) == Source::kDefault) return;
  *out = std::make_shared<const KeySet>(std::make_move_iterator(keys.begin()), std::make_move_iterator(keys.end()));
}

// Exactly one of `keys` must be there; empty: a fault was added.
std::string OneOf(Section& section, const std::vector<std::string>& keys) {
  std::vector<std::string> given;
  for (const std::string& key : keys) {
    if (section.Has(key)) given.push_back(key);
  }
  if (given.size() == 1) return given[0];
  const std::string allowed = fmt::format("exactly one of {}", fmt::join(keys, ", "));
  section.Fault(given.empty() ? "" : given[1],
                given.empty() ? "has none of its keys" : fmt::format("stands beside {}", given[0]), allowed);
  for (const std::string& key : keys) section.Value(key);
  return "";
}

std::string AcceptAttribute(std::string_view text, Condition* out) {
  static const std::vector<std::pair<std::string_view, Condition::Attribute>> kWords = {
      {"key", Condition::Attribute::kKey},
      {"tenant", Condition::Attribute::kTenant},
      {"user", Condition::Attribute::kUser},
      {"model", Condition::Attribute::kModel},
      {"class", Condition::Attribute::kClass}};
  for (const auto& [word, attribute] : kWords) {
    if (text == word) {
      out->attribute = attribute;
      return "";
    }
  }
  if (!text.starts_with(kHeaderPrefix)) return Quote(text) + " is not known";
  Parsed<std::string> name = ParseHeaderName(text.substr(kHeaderPrefix.size()));
  if (!name.value) return Quote(text) + name.what;
  out->attribute = Condition::Attribute::kHeader;
  out->header = *std::move(name.value);
  return "";
}

Condition ReadCondition(Section& section) {
  Condition out;
  constexpr std::string_view kAttributes = "key, tenant, user, model, class, or header:NAME in lower case";
  section.Require("attribute", kAttributes);
  section.Scalar("attribute", /*literal=*/false, kAttributes,
                 [&](std::string_view text, Source) { return AcceptAttribute(text, &out); });
  const std::string test = OneOf(section, {"equals", "in", "prefix", "semver", "percentage"});
  if (test == "equals" || test == "prefix") {
    out.test = test == "equals" ? Condition::Test::kEquals : Condition::Test::kPrefix;
    section.Scalar(test, /*literal=*/false, fmt::format("text of 1 to {} bytes", kMaxKeyBytes),
                   [&](std::string_view text, Source) {
                     out.text = text;
                     return text.empty() ? "is empty" : ParseText(text, kMaxKeyBytes).what;
                   });
  } else if (test == "in") {
    out.test = Condition::Test::kIn;
    out.values = std::make_shared<const KeySet>();
    ReadKeys(section, "in", &out.values);
  } else if (test == "semver") {
    out.test = Condition::Test::kSemver;
    section.Scalar("semver", /*literal=*/false, kVersions, [&](std::string_view text, Source) {
      const std::optional<flags::VersionRange> range = flags::VersionRange::Parse(text);
      if (!range) return Quote(text) + " is not a range of versions";
      out.range = *range;
      out.text = text;
      return std::string();
    });
  } else if (test == "percentage") {
    out.test = Condition::Test::kPercentage;
    section.PercentAsBps("percentage", &out.bps);
  }
  return out;
}

void ReadThen(Section section, Rule* rule) {
  const std::string what = OneOf(section, {"in", "variant", "percentage"});
  if (what == "in") {
    bool in = false;
    section.Bool("in", &in);
    rule->then = in ? Rule::Then::kIn : Rule::Then::kOut;
  } else if (what == "variant") {
    rule->then = Rule::Then::kVariant;
    section.Name("variant", &rule->variant);
  } else if (what == "percentage") {
    rule->then = Rule::Then::kPercentage;
    section.PercentAsBps("percentage", &rule->bps);
  }
}

void ReadRules(Section& section, std::vector<Rule>* out) {
  section.Each("rules", kMaxRules, [&](Section& item) {
    Rule rule;
    item.Require("name", kNameAllowed);
    item.Name("name", &rule.name);
    const auto same = [&](const Rule& other) { return other.name == rule.name; };
    if (!rule.name.empty() && std::any_of(out->begin(), out->end(), same)) {
      item.Fault("name", Quote(rule.name) + " is the name of an earlier rule", "one rule with a name");
    }
    item.Require("when", "a list of conditions");
    item.Each("when", kMaxConditions, [&](Section& one) { rule.when.push_back(ReadCondition(one)); });
    item.Require("then", "in, variant or percentage");
    if (item.Has("then")) ReadThen(item.Map("then"), &rule);
    out->push_back(std::move(rule));
  });
}

void ReadTime(Section& section, std::string_view key, std::optional<WallTime>* out) {
  section.Scalar(key, /*literal=*/false, "a time as 2026-01-31T23:59:59Z or with an offset (RFC 3339)",
                 [out](std::string_view text, Source) {
                   const Parsed<WallTime> parsed = ParseTimestamp(text);
                   *out = parsed.value;
                   return parsed.what;
                 });
}

}  // namespace

void ReadTargeting(Section& section, flags::Flag* flag) {
  ReadVariants(section.Map("variants"), &flag->variants);
  ReadRules(section, &flag->rules);
  ReadKeys(section, "allow", &flag->allow);
  ReadKeys(section, "deny", &flag->deny);
  Section schedule = section.Map("schedule");
  ReadTime(schedule, "start", &flag->schedule.start);
  ReadTime(schedule, "end", &flag->schedule.end);
}

}  // namespace sluice::config
