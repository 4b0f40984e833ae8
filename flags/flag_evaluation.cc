// The way of one decision; see FlagSet::Evaluate.
#include <string>

#include "flags/flag_set.h"
#include "flags/targeting.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::flags {
namespace {

bool IsIn(const Variant& variant) {
  return variant.value->is_boolean() ? variant.value->get<bool>() : variant.name != "off";
}

bool Contains(const std::shared_ptr<const KeySet>& list, std::string_view key) {
  return list != nullptr && list->contains(key);
}

std::string ScheduleText(const Schedule& schedule) {
  const auto text = [](const std::optional<WallTime>& time) { return time ? TimeText(*time) : "open"; };
  return fmt::format("{} to {}", text(schedule.start), text(schedule.end));
}

DrawTrace TraceDraw(const std::string& salt, int hash_version, const KeyHash& hash, uint32_t bucket,
                    uint32_t threshold) {
  return {salt, hash_version, fmt::format("{:08x}", hash.first), bucket, threshold};
}

// Compares the key's bucket with a percentage.
void Split(const Flag& flag, RolloutBps bps, const EvaluationContext& context, Decision* d, Explanation* trace) {
  if (bps == 0 || bps == kBuckets) {
    d->reason = Reason::kStatic;
    d->in = bps != 0;
    return;
  }
  if (context.targeting_key.empty()) {
    d->reason = Reason::kTargetingKeyMissing;
    d->in = false;
    return;
  }
  const KeyHash hash = HashKey(flag.hash_version, flag.salt, context.targeting_key);
  d->reason = Reason::kSplit;
  d->bucket = static_cast<int32_t>(hash.first % (flag.hash_version == 1 ? 100 : kBuckets));
  d->threshold = SplitThreshold(flag.hash_version, bps);
  d->sample = hash.second;
  d->in = static_cast<uint32_t>(d->bucket) < d->threshold;
  if (trace != nullptr) {
    trace->split = TraceDraw(flag.salt, flag.hash_version, hash, static_cast<uint32_t>(d->bucket), d->threshold);
  }
}

bool AllMatch(const Rule& rule, const EvaluationContext& context, Explanation* trace) {
  for (const Condition& condition : rule.when) {
    if (Matches(condition, context)) continue;
    if (trace != nullptr) {
      const std::string_view found = AttributeValue(condition, context);
      trace->rules.push_back({rule.name, false,
                              found.empty() ? Describe(condition) + ": not given"
                                            : fmt::format("{}: found \"{}\"", Describe(condition), Shown(found))});
    }
    return false;
  }
  if (trace != nullptr) trace->rules.push_back({rule.name, true, DescribeThen(rule)});
  return true;
}

}  // namespace

Decision FlagSet::Evaluate(std::string_view flag, const EvaluationContext& context, const Decision* parent) const {
  const int index = IndexOf(flag);
  if (index < 0) return Decision{.flag = flag, .reason = Reason::kUnknownFlag, .epoch = epoch_};
  return EvaluateAt(index, context, parent, nullptr);
}

Explanation FlagSet::ExplainFor(std::string_view flag, const EvaluationContext& context) const {
  Explanation out{.flag = std::string(flag)};
  const int index = IndexOf(flag);
  if (index < 0) {
    out.decision = {.flag = flag, .reason = Reason::kUnknownFlag, .epoch = epoch_};
  } else {
    out.decision = EvaluateAt(index, context, nullptr, &out);
  }
  return out;
}

Decision FlagSet::EvaluateAt(int index, const EvaluationContext& context, const Decision* known_parent,
                             Explanation* trace) const {
  const Flag& flag = spec_.flags[index];
  const Node& node = nodes_[index];
  if (trace != nullptr) {
    trace->flag = flag.key;
    trace->definition_layer = flag.definition_layer;
    trace->enabled_layer = flag.layer;
    trace->rollout_layer = flag.rollout_layer;
    trace->enabled = flag.enabled;
    trace->rollout_bps = flag.rollout_bps;
    for (const InertValue& inert : spec_.inert) {
      if (inert.flag == flag.key) trace->inert.push_back(inert);
    }
  }
  Decision d{.flag = flag.key, .layer = flag.rollout_layer, .epoch = epoch_};
  const bool inside = flag.schedule.Contains(context.now);
  if (trace != nullptr && (flag.schedule.start || flag.schedule.end)) {
    trace->schedule = fmt::format("{}: {}", ScheduleText(flag.schedule), inside ? "inside" : "outside");
  }
  if (node.emergency || (!flag.enabled && flag.layer == Layer::kEmergency)) {
    d.reason = Reason::kEmergency;
    d.layer = Layer::kEmergency;
  } else if (!flag.enabled) {
    d.reason = Reason::kDisabled;
    d.layer = flag.layer;
  } else if (!inside) {
    d.reason = Reason::kSchedule;
    d.layer = flag.definition_layer;
  } else {
    bool parent_in = true;
    if (node.parent >= 0) {
      const bool known =
          trace == nullptr && known_parent != nullptr && known_parent->flag == spec_.flags[node.parent].key;
      Explanation* const parent_trace = trace == nullptr ? nullptr : &trace->parents.emplace_back();
      const Decision parent = known ? *known_parent : EvaluateAt(node.parent, context, known_parent, parent_trace);
      if (parent_trace != nullptr) parent_trace->decision = parent;
      parent_in = parent.in;
      if (parent_in) {
        d.dry_run = parent.dry_run;
      } else {  // keeps what the parent decided with: layer, bucket, threshold
        d = parent;
        d.flag = flag.key;
        d.sample = 0;
        d.variant_value = nullptr;
        const bool chosen = parent.reason == Reason::kSplit || parent.reason == Reason::kStatic ||
                            parent.reason == Reason::kTargetingMatch || parent.reason == Reason::kDefault;
        if (chosen) d.reason = Reason::kParentOut;
      }
    }
    if (parent_in) Choose(index, context, &d, trace);
  }
  if (!d.in && d.variant_value == nullptr && node.off_variant >= 0) d.variant_value = &flag.variants[node.off_variant];
  d.variant = d.variant_value != nullptr ? std::string_view(d.variant_value->name) : d.in ? "on" : "off";
  d.dry_run = d.in && (d.dry_run || flag.dry_run);
  return d;
}

void FlagSet::Choose(int index, const EvaluationContext& context, Decision* d, Explanation* trace) const {
  const Flag& flag = spec_.flags[index];
  const bool program = flag.targeting != nullptr;
  const bool gated = flag.rollout_layer >= (program ? Layer::kRolloutStage : Layer::kRollback);
  if (gated) {
    Split(flag, flag.rollout_bps, context, d, trace);
    if (!d->in) return;
  }
  if (program) {
    const Targeting::Result result = flag.targeting->Evaluate(flag.key, context);
    d->reason = result.reason;
    d->layer = flag.definition_layer;
    d->variant_value = result.variant;
    d->in = result.variant != nullptr && IsIn(*result.variant);
    if (trace != nullptr) trace->program_error = result.error;
    return;
  }
  if (AskLists(flag, context, d, trace)) {
    if (d->in) DrawVariant(index, context, d, trace);
    return;
  }
  for (const Rule& rule : flag.rules) {
    if (AllMatch(rule, context, trace)) return ApplyRule(index, rule, context, d, trace);
  }
  if (!gated) Split(flag, flag.rollout_bps, context, d, trace);
  if (d->in) DrawVariant(index, context, d, trace);
}

bool FlagSet::AskLists(const Flag& flag, const EvaluationContext& context, Decision* d, Explanation* trace) const {
  const bool denied = Contains(flag.deny, context.targeting_key);
  const bool allowed = !denied && Contains(flag.allow, context.targeting_key);
  if (trace != nullptr && (flag.deny != nullptr || flag.allow != nullptr)) {
    const auto size = [](const std::shared_ptr<const KeySet>& list) { return list == nullptr ? 0 : list->size(); };
    trace->lists = denied    ? "the key is in deny"
                   : allowed ? "the key is in allow"
                             : fmt::format("the key is in none of allow ({} keys), deny ({} keys)", size(flag.allow),
                                           size(flag.deny));
  }
  if (!denied && !allowed) return false;
  d->reason = Reason::kTargetingMatch;
  d->layer = flag.definition_layer;
  d->in = allowed;
  return true;
}

void FlagSet::ApplyRule(int index, const Rule& rule, const EvaluationContext& context, Decision* d,
                        Explanation* trace) const {
  const Flag& flag = spec_.flags[index];
  d->reason = Reason::kTargetingMatch;
  d->layer = flag.definition_layer;
  switch (rule.then) {
    case Rule::Then::kOut:
      d->in = false;
      return;
    case Rule::Then::kVariant:
      for (const Variant& variant : flag.variants) {
        if (variant.name == rule.variant) d->variant_value = &variant;
      }
      d->in = IsIn(*d->variant_value);
      return;
    case Rule::Then::kIn:
      d->in = true;
      break;
    case Rule::Then::kPercentage:
      Split(flag, rule.bps, context, d, trace);
      break;
  }
  if (d->in) DrawVariant(index, context, d, trace);
}

void FlagSet::DrawVariant(int index, const EvaluationContext& context, Decision* d, Explanation* trace) const {
  const Flag& flag = spec_.flags[index];
  const Node& node = nodes_[index];
  if (flag.variants.empty()) return;
  size_t chosen = 0;
  if (node.only_variant >= 0) {
    chosen = static_cast<size_t>(node.only_variant);
  } else if (context.targeting_key.empty()) {
    d->reason = Reason::kTargetingKeyMissing;
    d->in = false;
    return;
  } else {
    const KeyHash hash = HashKey(2, node.split_salt, context.targeting_key);
    const uint64_t at = uint64_t{hash.first % kBuckets} * node.weights;
    uint64_t end = uint64_t{flag.variants[0].weight} * kBuckets;
    while (at >= end) end += uint64_t{flag.variants[++chosen].weight} * kBuckets;  // `at` is below the sum of all
    if (trace != nullptr) {
      const auto threshold = static_cast<uint32_t>((end + node.weights - 1) / node.weights);
      trace->variant = TraceDraw(node.split_salt, 2, hash, hash.first % kBuckets, threshold);
    }
  }
  d->variant_value = &flag.variants[chosen];
  d->in = IsIn(*d->variant_value);
}

}  // namespace sluice::flags
