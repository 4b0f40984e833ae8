#include "flags/flagd/definitions.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "base/status.h"
#include "flags/flagd/json_logic.h"
#include "flags/flagd/logic_values.h"
#include "flags/flagd/rule_check.h"
#include "fmt/format.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

constexpr size_t kMaxFaultsNamed = 20;
constexpr size_t kMaxKeyBytes = 256;
constexpr std::string_view kHeaders = "headers.";

std::string Found(const json& value) { return value.is_structured() ? value.type_name() : value.dump(); }

// Names of headers that carry no secrets in {"var": "headers.<name>"}.
void CollectHeaders(const json& rule, std::set<std::string>& names) {
  if (!rule.is_structured()) return;
  const bool var = rule.is_object() && rule.size() == 1 && rule.begin().key() == "var";
  const json& path = !var                                                 ? rule
                     : rule.begin()->is_array() && !rule.begin()->empty() ? (*rule.begin())[0]
                                                                          : *rule.begin();
  if (const auto* text = path.get_ptr<const std::string*>(); var && text != nullptr && text->starts_with(kHeaders)) {
    const std::string name = absl::AsciiStrToLower(text->substr(kHeaders.size()));
    if (!IsSecretHeader(name)) names.insert(name);
  }
  for (const json& part : rule) CollectHeaders(part, names);
}

class Reader {
 public:
  explicit Reader(const ParseOptions& options) : options_(options) {}

  absl::StatusOr<Definitions> Read(const json& document) {
    if (!document.is_object())
      return InvalidFields({{"document", "got " + Found(document) + "; allowed is an object"}});
    auto shared = std::make_shared<SharedParts>();
    shared->static_context = options_.static_context;
    ReadShared(document, *shared);
    CollectHeaders(shared->rules, shared->headers);
    out_.metadata = shared->metadata = Metadata(document, "");
    shared_ = std::move(shared);
    const auto flags = document.find("flags");
    if (flags == document.end()) {
      Fault("flags", "is missing");
    } else if (flags->size() > options_.max_flags) {
      Fault("flags", fmt::format("got {} flags; allowed up to {}", flags->size(), options_.max_flags));
    } else if (flags->is_object()) {
      for (const auto& [key, flag] : flags->items()) ReadFlag(key, flag, Path("flags", key));
    } else if (flags->is_array()) {
      ReadList(*flags);
    } else {
      Fault("flags", "got " + Found(*flags) + "; allowed is an object or a list of flags");
    }
    if (faults_.empty()) return std::move(out_);
    if (faults_.size() > kMaxFaultsNamed) {
      const size_t more = faults_.size() - kMaxFaultsNamed;
      faults_.resize(kMaxFaultsNamed);
      faults_.push_back({"document", fmt::format("and {} more faults", more)});
    }
    return InvalidFields(std::move(faults_));
  }

 private:
  void Fault(const std::string& path, std::string what) { faults_.push_back({path, std::move(what)}); }

  void ReadShared(const json& document, SharedParts& shared) {
    const auto rules = document.find("$evaluators");
    if (rules == document.end()) return;
    if (!rules->is_object()) return Fault("$evaluators", "got " + Found(*rules) + "; allowed is an object of rules");
    if (rules->size() > options_.max_shared_rules) {
      return Fault("$evaluators", fmt::format("got {}; allowed up to {}", rules->size(), options_.max_shared_rules));
    }
    shared.rules = *rules;
    std::vector<FieldViolation> faults;
    CheckCycles(*rules, faults);
    for (const auto& [name, rule] : rules->items()) {
      if (!rule.empty()) CheckRule(rule, Path("$evaluators", name), &*rules, faults);
    }
    TakeRuleFaults(std::move(faults));
  }

  void TakeRuleFaults(std::vector<FieldViolation> faults) {
    for (FieldViolation& fault : faults) {
      if (options_.refuse_bad_rules) {
        faults_.push_back(std::move(fault));
      } else if (out_.warnings.size() < kMaxFaultsNamed) {
        out_.warnings.push_back(fmt::format("{}: {}", fault.field, fault.description));
      }
    }
  }

  json Metadata(const json& object, const std::string& path) {
    const auto metadata = object.find("metadata");
    if (metadata == object.end()) return json::object();
    const std::string here = Path(path, "metadata");
    if (!metadata->is_object()) {
      Fault(here, "got " + Found(*metadata) + "; allowed is an object");
      return json::object();
    }
    for (const auto& [key, value] : metadata->items()) {
      const bool text_only = path.empty() && (key == "flagSetId" || key == "version");
      if (text_only ? value.is_string() : value.is_string() || value.is_number() || value.is_boolean()) continue;
      Fault(Path(here, key), fmt::format("got {}; allowed is {}", Found(value),
                                         text_only ? "a string" : "a string, a number or a boolean"));
    }
    return *metadata;
  }

  void ReadList(const json& flags) {
    std::set<std::string> seen;
    for (size_t i = 0; i < flags.size(); ++i) {
      const std::string path = Path("flags", i);
      const auto* key =
          flags[i].is_object() && flags[i].contains("key") ? flags[i]["key"].get_ptr<const std::string*>() : nullptr;
      if (key == nullptr) {
        Fault(Path(path, "key"), "is missing, or no string; every flag of a list needs one");
      } else if (!seen.insert(*key).second) {
        Fault(Path(path, "key"), fmt::format("\"{}\" appears twice", *key));
      } else {
        ReadFlag(*key, flags[i], path);
      }
    }
  }

  void ReadFlag(const std::string& key, const json& flag, const std::string& path) {
    const size_t faults_before = faults_.size();
    if (key.empty() || key.size() > kMaxKeyBytes) {
      Fault(path, fmt::format("the key has {} bytes; allowed 1 to {}", key.size(), kMaxKeyBytes));
    }
    if (!flag.is_object()) return Fault(path, "got " + Found(flag) + "; allowed is a flag: an object");
    FlagdTargeting::Parts parts{.shared = shared_};
    const bool enabled = ReadState(flag, path);
    ReadVariants(flag, path, parts);
    ReadDefault(flag, path, parts);
    if (const auto rule = flag.find("targeting"); rule != flag.end()) {
      std::vector<FieldViolation> rule_faults;
      if (!rule->is_object()) {
        Fault(Path(path, "targeting"), "got " + Found(*rule) + "; allowed is a rule: an object");
      } else if (!rule->empty()) {
        CheckRule(*rule, Path(path, "targeting"), &shared_->rules, rule_faults);
      }
      TakeRuleFaults(std::move(rule_faults));
      parts.rule = *rule;
    }
    parts.metadata = Metadata(flag, path);
    if (faults_.size() != faults_before) return;
    out_.flags.push_back({.key = key,
                          .enabled = enabled,
                          .rollout_bps = kBuckets,
                          .layer = Layer::kRemote,
                          .rollout_layer = Layer::kRemote,
                          .targeting = std::make_shared<const FlagdTargeting>(std::move(parts)),
                          .definition_layer = Layer::kRemote});
  }

  bool ReadState(const json& flag, const std::string& path) {
    const auto state = flag.find("state");
    if (state != flag.end() && (*state == "ENABLED" || *state == "DISABLED")) return *state == "ENABLED";
    Fault(Path(path, "state"), state == flag.end()
                                   ? "is missing; allowed ENABLED or DISABLED"
                                   : fmt::format("got {}; allowed \"ENABLED\" or \"DISABLED\"", Found(*state)));
    return false;
  }

  void ReadVariants(const json& flag, const std::string& path, FlagdTargeting::Parts& parts) {
    const std::string here = Path(path, "variants");
    const auto variants = flag.find("variants");
    if (variants == flag.end()) return Fault(here, "is missing");
    if (!variants->is_object() || variants->empty()) {
      return Fault(here, "got " + Found(*variants) + "; allowed is an object with one variant or more");
    }
    std::string_view type;
    for (const auto& [name, value] : variants->items()) {
      const std::string at = Path(here, name);
      if (name.empty()) Fault(at, "a variant needs a name");
      if (value.is_null() || value.is_array()) {
        Fault(at, "got " + Found(value) + "; allowed is a boolean, a string, a number or an object");
      } else if (!type.empty() && type != value.type_name()) {
        Fault(at, fmt::format("got a {}; the variants before it are of type {}, and all must be of one",
                              value.type_name(), type));
      }
      if (type.empty()) type = value.type_name();
      parts.variants.push_back({.name = name, .value = std::make_shared<const json>(value)});
    }
  }

  void ReadDefault(const json& flag, const std::string& path, FlagdTargeting::Parts& parts) {
    const auto name = flag.find("defaultVariant");
    if (name == flag.end() || name->is_null()) return;
    const auto* text = name->get_ptr<const std::string*>();
    const bool known = text != nullptr && std::any_of(parts.variants.begin(), parts.variants.end(),
                                                      [&](const Variant& v) { return v.name == *text; });
    if (known) {
      parts.default_variant = *text;
    } else if (text == nullptr || !text->empty()) {  // flagd takes "" for none
      Fault(Path(path, "defaultVariant"),
            fmt::format("got {}; allowed is null or the name of a variant", Found(*name)));
    }
  }

  const ParseOptions& options_;
  std::shared_ptr<const SharedParts> shared_;
  Definitions out_;
  std::vector<FieldViolation> faults_;
};

}  // namespace

std::vector<std::string> FlagdTargeting::HeaderNames() const {
  std::vector<std::string> names(headers_.begin(), headers_.end());
  names.insert(names.end(), parts_.shared->headers.begin(), parts_.shared->headers.end());
  return names;
}

FlagdTargeting::FlagdTargeting(Parts parts) : parts_(std::move(parts)) { CollectHeaders(parts_.rule, headers_); }

json FlagdTargeting::Metadata() const {
  json merged = parts_.shared->metadata;
  merged.update(parts_.metadata);
  return merged;
}

bool FlagdTargeting::SameDefinition(const FlagdTargeting& other) const {
  const Parts &a = parts_, &b = other.parts_;
  const auto same_variant = [](const Variant& x, const Variant& y) { return x.name == y.name && *x.value == *y.value; };
  const bool same_shared =
      a.shared == b.shared || (a.shared->rules == b.shared->rules && a.shared->metadata == b.shared->metadata &&
                               a.shared->static_context == b.shared->static_context);
  return same_shared && a.default_variant == b.default_variant && a.rule == b.rule && a.metadata == b.metadata &&
         std::equal(a.variants.begin(), a.variants.end(), b.variants.begin(), b.variants.end(), same_variant);
}

const Variant* FlagdTargeting::Find(std::string_view name) const {
  const auto it =
      std::find_if(parts_.variants.begin(), parts_.variants.end(), [&](const Variant& v) { return v.name == name; });
  return it == parts_.variants.end() ? nullptr : &*it;
}

json FlagdTargeting::Attributes(std::string_view flag_key, const EvaluationContext& context) const {
  json attributes = json::object();
  if (context.attributes != nullptr && context.attributes->is_object()) {
    attributes = *context.attributes;
  } else {
    const auto set = [&](const char* name, std::string_view value) {
      if (!value.empty()) attributes[name] = std::string(value);
    };
    set("targetingKey", context.targeting_key);
    set("tenant", context.tenant);
    set("user", context.user);
    set("model", context.model);
    set("class", context.qos_class);
  }
  for (const std::set<std::string>* names : {&headers_, &parts_.shared->headers}) {
    if (context.headers == nullptr || names->empty()) continue;
    json& headers = attributes["headers"];
    if (!headers.is_object()) headers = json::object();
    for (const std::string& name : *names) {
      if (const std::string_view value = context.headers->Header(name); !value.empty())
        headers[name] = std::string(value);
    }
  }
  attributes.update(parts_.shared->static_context);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(context.now.time_since_epoch()).count();
  attributes["$flagd"] = {{"flagKey", std::string(flag_key)}, {"timestamp", seconds}};
  return attributes;
}

Targeting::Result FlagdTargeting::Evaluate(std::string_view flag_key, const EvaluationContext& context) const {
  const Variant* fallback = parts_.default_variant.empty() ? nullptr : Find(parts_.default_variant);
  if (parts_.rule.empty()) return {fallback, fallback == nullptr ? Reason::kDefault : Reason::kStatic, {}};
  const absl::StatusOr<json> answer = ApplyLogic(parts_.rule, Attributes(flag_key, context), &parts_.shared->rules);
  if (!answer.ok()) {
    return {nullptr, Reason::kError, fmt::format("PARSE_ERROR: {}", std::string(answer.status().message()))};
  }
  if (answer->is_null()) return {fallback, Reason::kDefault, {}};
  const std::optional<std::string> name = ScalarText(*answer);
  const Variant* variant = name.has_value() ? Find(*name) : nullptr;
  if (variant != nullptr) return {variant, Reason::kTargetingMatch, {}};
  return {nullptr, Reason::kError,
          fmt::format("GENERAL: targeting answered {}, which is no variant", name.value_or(answer->type_name()))};
}

absl::StatusOr<Definitions> ParseDefinitions(std::string_view text, const ParseOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const json document, ParseStrictJson(text, options.json));
  return Reader(options).Read(document);
}

}  // namespace sluice::flags::flagd
