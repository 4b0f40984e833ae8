#include "services/flag_answers.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "flags/flag_changes.h"
#include "flags/flagd/definitions.h"
#include "fmt/format.h"

namespace sluice::services {
namespace {

using flags::Decision;
using flags::Flag;
using flags::Reason;
using flags::flagd::FlagdTargeting;
using nlohmann::json;

// The client's attributes as the gate sees a request.
class Attributes final : public flags::HeaderSource {
 public:
  Attributes(const json& attributes, WallTime now) : attributes_(attributes), now_(now) {}

  flags::EvaluationContext Context() const {
    return {.targeting_key = Text(attributes_, "targetingKey"),
            .tenant = Text(attributes_, "tenant"),
            .user = Text(attributes_, "user"),
            .model = Text(attributes_, "model"),
            .qos_class = Text(attributes_, "class"),
            .headers = this,
            .attributes = &attributes_,
            .now = now_};
  }

  std::string_view Header(std::string_view name) const override {
    const auto headers = attributes_.find("headers");
    return headers == attributes_.end() ? std::string_view() : Text(*headers, name);
  }

 private:
  static std::string_view Text(const json& object, std::string_view name) {
    const auto it = object.find(std::string(name));  // end() for what is no object
    const auto* text = it == object.end() ? nullptr : it->get_ptr<const std::string*>();
    return text == nullptr ? std::string_view() : *text;
  }

  const json& attributes_;
  const WallTime now_;
};

const FlagdTargeting* FlagdOf(const Flag& flag) { return dynamic_cast<const FlagdTargeting*>(flag.targeting.get()); }

bool IsBoolean(const Flag& flag) {
  const FlagdTargeting* flagd = FlagdOf(flag);
  const std::vector<flags::Variant>& variants = flagd != nullptr ? flagd->variants() : flag.variants;
  return std::all_of(variants.begin(), variants.end(), [](const flags::Variant& v) { return v.value->is_boolean(); });
}

// The switch, the schedule, a parent or an emergency decided, not the flag's own rules.
bool HeldOut(const Decision& d) {
  return d.reason == Reason::kDisabled || d.reason == Reason::kEmergency || d.reason == Reason::kParentOut ||
         d.reason == Reason::kSchedule;
}

// Clients keep what is STATIC for every user until the flag changes: true only where nothing looks at the context.
std::string ReasonFor(const Flag& flag, const Decision& d) {
  const bool alike = flag.parent.empty() && flag.rules.empty() && flag.allow == nullptr && flag.deny == nullptr &&
                     !flag.schedule.start.has_value() && !flag.schedule.end.has_value();
  return std::string(d.reason == Reason::kStatic && !alike ? "DEFAULT" : flags::ReasonName(d.reason));
}

void SetError(const Flag& flag, const flags::EvaluationContext& context, FlagAnswer& answer) {
  answer.reason = "ERROR";
  answer.error = FlagError::kGeneral;
  answer.message = "the flag's definition cannot be evaluated";
  if (flag.targeting == nullptr) return;
  // A decision has no room for what is wrong; asking again is rare and tells.
  answer.message = flag.targeting->Evaluate(flag.key, context).error;
  if (answer.message.starts_with(FlagErrorCode(FlagError::kParseError))) answer.error = FlagError::kParseError;
}

void SetHeldOut(const Flag& flag, const Decision& d, FlagAnswer& answer) {
  // flagd's own way with a disabled flag, for definitions that came in its format.
  const bool default_in_code = !IsBoolean(flag) || (FlagdOf(flag) != nullptr && d.reason == Reason::kDisabled);
  answer.reason = default_in_code ? "DISABLED" : std::string(flags::ReasonName(d.reason));
  if (default_in_code) return;
  answer.value = false;
  answer.variant = "off";
}

FlagAnswer Answer(const flags::FlagSet& set, const Flag& flag, const flags::EvaluationContext& context) {
  FlagAnswer answer{.key = flag.key};
  const Decision d = set.Evaluate(flag.key, context);
  if (const FlagdTargeting* flagd = FlagdOf(flag)) {
    answer.metadata = flagd->Metadata();
  } else {
    answer.metadata["epoch"] = d.epoch;
  }
  if (d.reason == Reason::kError) {
    SetError(flag, context, answer);
  } else if (HeldOut(d)) {
    SetHeldOut(flag, d, answer);
  } else if (d.variant_value != nullptr && !d.dry_run) {
    answer.value = *d.variant_value->value;
    answer.variant = d.variant_value->name;
    answer.reason = ReasonFor(flag, d);
  } else if (FlagdOf(flag) != nullptr || !IsBoolean(flag)) {
    answer.reason = "DEFAULT";  // no variant: the default in the client's code
  } else {
    answer.value = d.in && !d.dry_run;
    answer.variant = answer.value.get<bool>() ? "on" : "off";
    answer.reason = ReasonFor(flag, d);
  }
  if (d.dry_run) answer.metadata["dry_run"] = std::string(d.variant);
  return answer;
}

bool SameProgram(const Flag* a, const Flag* b) {
  if (a == nullptr || b == nullptr) return false;
  const FlagdTargeting *flagd_a = FlagdOf(*a), *flagd_b = FlagdOf(*b);
  return flagd_a != nullptr && flagd_b != nullptr && flagd_a->SameDefinition(*flagd_b);
}

std::map<std::string_view, const Flag*> ByKey(const flags::FlagSet& set) {
  std::map<std::string_view, const Flag*> flags;
  for (const Flag& flag : set.flags()) flags.emplace(flag.key, &flag);
  return flags;
}

// The flags below those that changed; `all`: every flag.
void AddChildren(const flags::FlagSet& set, bool all, FlagChanges& changes) {
  for (bool grew = true; grew;) {
    grew = false;
    for (const Flag& flag : set.flags()) {
      if (all || changes.contains(flag.parent)) grew |= changes.emplace(flag.key, "update").second;
    }
  }
}

}  // namespace

std::string_view FlagErrorCode(FlagError error) {
  switch (error) {
    case FlagError::kFlagNotFound:
      return "FLAG_NOT_FOUND";
    case FlagError::kTypeMismatch:
      return "TYPE_MISMATCH";
    case FlagError::kParseError:
      return "PARSE_ERROR";
    case FlagError::kGeneral:
      return "GENERAL";
    case FlagError::kNone:
      break;
  }
  return "";
}

FlagAnswer AnswerFlag(const flags::FlagSet& set, std::string_view key, const json& attributes, WallTime now) {
  const Flag* flag = set.Find(key);
  if (flag != nullptr) return Answer(set, *flag, Attributes(attributes, now).Context());
  return {.key = std::string(key),
          .reason = "ERROR",
          .error = FlagError::kFlagNotFound,
          .message = fmt::format("no flag is called \"{}\"", key.substr(0, 128))};
}

std::vector<FlagAnswer> AnswerAllFlags(const flags::FlagSet& set, const json& attributes, WallTime now) {
  const Attributes source(attributes, now);
  std::vector<FlagAnswer> answers;
  for (const auto& [key, flag] : ByKey(set)) answers.push_back(Answer(set, *flag, source.Context()));
  return answers;
}

FlagChanges CompareFlags(const flags::FlagSet& before, const flags::FlagSet& after) {
  // A switch over all flags, or a parent, changes answers of flags that look as they did.
  const bool switched = before.spec().kill_switch != after.spec().kill_switch ||
                        before.spec().rollback_to_baseline != after.spec().rollback_to_baseline;
  FlagChanges changes;
  for (const flags::FlagChange& change : flags::FindChanges(before.spec(), after.spec())) {
    const Flag *old_flag = before.Find(change.flag), *new_flag = after.Find(change.flag);
    if (old_flag == nullptr && new_flag == nullptr) continue;                    // the switches
    if (change.field == "program" && SameProgram(old_flag, new_flag)) continue;  // read again: another address
    changes[change.flag] = old_flag == nullptr ? "write" : new_flag == nullptr ? "delete" : "update";
  }
  AddChildren(after, switched, changes);
  return changes;
}

FlagChanges ScheduledFlags(const flags::FlagSet& set, const std::vector<flags::FlagChange>& changes) {
  FlagChanges out;
  for (const flags::FlagChange& change : changes) out.emplace(change.flag, "update");
  AddChildren(set, /*all=*/false, out);
  return out;
}

}  // namespace sluice::services
