#include "flags/flag_set.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/status.h"
#include "flags/bucket.h"
#include "flags/targeting.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::flags {
namespace {

constexpr RolloutBps kBpsPerPercent = 100;

double Share(RolloutBps bps) { return static_cast<double>(bps) / kBuckets; }
double OwnShare(const Flag& flag) { return flag.enabled ? Share(flag.rollout_bps) : 0.0; }
std::string Percent(double share) { return fmt::format("{:.6g} %", share * 100); }

int FindByKey(const std::vector<Flag>& flags, std::string_view key) {
  const auto it = std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.key == key; });
  return it == flags.end() ? -1 : static_cast<int>(it - flags.begin());
}

bool IsIn(const Variant& variant) {
  return variant.value->is_boolean() ? variant.value->get<bool>() : variant.name != "off";
}

// The cycle of parents that starts and ends at flag `start` ("a -> b -> a"), or empty.
std::string CycleFrom(const std::vector<Flag>& flags, int start) {
  std::string path = flags[start].key;
  int at = start;
  for (size_t steps = 0; steps < flags.size(); ++steps) {
    at = FindByKey(flags, flags[at].parent);
    if (at < start) return {};  // outside, unknown, or a cycle that its first flag reports
    path += " -> " + flags[at].key;
    if (at == start) return path;
  }
  return {};  // leads into a cycle without being part of it
}

std::vector<FieldViolation> FindFaults(const std::vector<Flag>& flags) {
  std::vector<FieldViolation> faults;
  for (int i = 0; i < static_cast<int>(flags.size()); ++i) {
    const Flag& flag = flags[i];
    const std::string name = flag.key.empty() ? fmt::format("flags[{}]", i) : flag.key;
    const auto fault = [&](std::string_view field, std::string description) {
      faults.push_back({fmt::format("{}.{}", name, field), std::move(description)});
    };
    if (flag.key.empty()) fault("key", "is empty; every flag needs a key");
    if (!flag.key.empty() && FindByKey(flags, flag.key) < i) fault("key", "appears more than once");
    if (flag.rollout_bps > kBuckets) {
      fault("rollout_percentage", fmt::format("got {}; allowed 0 to 100 %", Percent(Share(flag.rollout_bps))));
    }
    if (flag.hash_version != 1 && flag.hash_version != 2) {
      fault("hash_version", fmt::format("got {}; allowed 1 or 2", flag.hash_version));
    }
    // Its 100 buckets cannot split finer, and rounding would expose more or fewer keys than somebody asked for.
    if (flag.hash_version == 1 && flag.rollout_bps % kBpsPerPercent != 0) {
      fault("rollout_percentage",
            fmt::format("got {}; hash_version 1 allows whole percents only", Percent(Share(flag.rollout_bps))));
    }
    if (flag.parent.empty()) continue;
    if (FindByKey(flags, flag.parent) < 0) {
      fault("parent", fmt::format("no flag is called \"{}\"", flag.parent));
    } else if (const std::string cycle = CycleFrom(flags, i); !cycle.empty()) {
      fault("parent", fmt::format("parents form a cycle: {}", cycle));
    }
  }
  return faults;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const FlagSet>> FlagSet::Create(FlagSetSpec spec, uint64_t epoch) {
  std::vector<FieldViolation> faults = FindFaults(spec.flags);
  if (!faults.empty()) return InvalidFields(std::move(faults));
  for (Flag& flag : spec.flags) {
    if (flag.salt.empty()) flag.salt = flag.key;
  }
  return std::shared_ptr<const FlagSet>(new FlagSet(std::move(spec), epoch));
}

FlagSet::FlagSet(FlagSetSpec spec, uint64_t epoch)
    : spec_(std::move(spec)), epoch_(epoch), by_key_(spec_.flags.size()), nodes_(spec_.flags.size()) {
  const std::vector<Flag>& flags = spec_.flags;
  std::iota(by_key_.begin(), by_key_.end(), 0);
  std::sort(by_key_.begin(), by_key_.end(), [&](int a, int b) { return flags[a].key < flags[b].key; });
  for (size_t i = 0; i < flags.size(); ++i) nodes_[i].parent = flags[i].parent.empty() ? -1 : IndexOf(flags[i].parent);
  for (size_t i = 0; i < flags.size(); ++i) {
    bool baseline_only = false;  // ttft_pipeline, or one of its children
    for (int at = static_cast<int>(i); at >= 0; at = nodes_[at].parent) baseline_only |= flags[at].key == kTtftPipeline;
    nodes_[i].emergency = spec_.kill_switch || (spec_.rollback_to_baseline && baseline_only);
  }
}

int FlagSet::IndexOf(std::string_view key) const {
  const auto it = std::lower_bound(by_key_.begin(), by_key_.end(), key,
                                   [&](int i, std::string_view k) { return spec_.flags[i].key < k; });
  return it != by_key_.end() && spec_.flags[*it].key == key ? *it : -1;
}

Decision FlagSet::Evaluate(std::string_view flag, const EvaluationContext& context, const Decision* parent) const {
  const int index = IndexOf(flag);
  if (index < 0) return Decision{.flag = flag, .reason = Reason::kUnknownFlag, .epoch = epoch_};
  return EvaluateAt(index, context, parent);
}

Decision FlagSet::EvaluateAt(int index, const EvaluationContext& context, const Decision* known_parent) const {
  const Flag& flag = spec_.flags[index];
  const Node& node = nodes_[index];
  Decision d{.flag = flag.key, .layer = flag.rollout_layer, .epoch = epoch_};
  if (node.emergency) {
    d.reason = Reason::kEmergency;
    d.layer = Layer::kEmergency;
    return d;
  }
  if (!flag.enabled) {
    d.reason = Reason::kDisabled;
    d.layer = flag.layer;
    return d;
  }
  if (node.parent >= 0) {
    const bool known = known_parent != nullptr && known_parent->flag == spec_.flags[node.parent].key;
    const Decision parent = known ? *known_parent : EvaluateAt(node.parent, context, known_parent);
    if (!parent.in) {  // keeps what the parent decided with: layer, bucket, threshold
      d = parent;
      d.flag = flag.key;
      if (parent.reason == Reason::kSplit || parent.reason == Reason::kStatic) d.reason = Reason::kParentOut;
      return d;
    }
    d.dry_run = parent.dry_run;
  }
  if (flag.targeting != nullptr) {
    const Targeting::Result result = flag.targeting->Evaluate(flag.key, context);
    d.reason = result.reason;
    d.layer = flag.layer;
    d.variant_value = result.variant;
    d.in = result.variant != nullptr && IsIn(*result.variant);
  } else if (flag.rollout_bps == 0 || flag.rollout_bps == kBuckets) {
    d.reason = Reason::kStatic;
    d.in = flag.rollout_bps != 0;
  } else if (context.targeting_key.empty()) {
    d.reason = Reason::kTargetingKeyMissing;
  } else {
    const bool v1 = flag.hash_version == 1;
    d.reason = Reason::kSplit;
    d.bucket = static_cast<int32_t>((v1 ? BucketV1 : BucketV2)(flag.salt, context.targeting_key));
    d.threshold = v1 ? flag.rollout_bps / kBpsPerPercent : flag.rollout_bps;
    d.in = static_cast<uint32_t>(d.bucket) < d.threshold;
  }
  d.variant = d.variant_value != nullptr ? std::string_view(d.variant_value->name) : d.in ? "on" : "off";
  d.dry_run = d.in && (d.dry_run || flag.dry_run);
  return d;
}

bool FlagSet::FeatureOn(const Decision& decision, std::string_view feature) const {
  if (!decision.in || decision.dry_run) return false;
  const int index = IndexOf(decision.flag);
  if (index < 0) return false;
  for (const auto& [name, on] : spec_.flags[index].features) {  // a handful; map::find would need a std::string
    if (name == feature) return on;
  }
  return false;
}

double FlagSet::EffectiveShare(std::string_view flag) const {
  const int index = IndexOf(flag);
  return index < 0 ? 0.0 : EffectiveShareAt(index);
}

double FlagSet::EffectiveShareAt(int index) const {
  if (nodes_[index].emergency) return 0.0;
  const auto same_buckets = [&](int a, int b) {
    return spec_.flags[a].salt == spec_.flags[b].salt && spec_.flags[a].hash_version == spec_.flags[b].hash_version;
  };
  double share = 1.0;
  for (int at = index; at >= 0; at = nodes_[at].parent) {
    bool counted = false;  // a flag nearer to `index` hashes alike and took this one's share into its minimum
    for (int nearer = index; nearer != at; nearer = nodes_[nearer].parent) counted |= same_buckets(nearer, at);
    if (counted) continue;
    double smallest = 1.0;
    for (int other = at; other >= 0; other = nodes_[other].parent) {
      if (same_buckets(other, at)) smallest = std::min(smallest, OwnShare(spec_.flags[other]));
    }
    share *= smallest;
  }
  return share;
}

FlagSet::EffectiveState FlagSet::Describe() const {
  EffectiveState state;
  if (spec_.kill_switch) state.lines.push_back("emergency: kill_switch is on, every flag is out");
  if (spec_.rollback_to_baseline) {
    state.lines.push_back(fmt::format("emergency: rollback_to_baseline is on, {} is out", kTtftPipeline));
  }
  for (const int i : by_key_) {
    const Flag& flag = spec_.flags[i];
    std::string line =
        fmt::format("{}: {} ({}), {} ({})", flag.key, flag.enabled ? "enabled" : "disabled", LayerName(flag.layer),
                    Percent(Share(flag.rollout_bps)), LayerName(flag.rollout_layer));
    if (!flag.parent.empty()) line += fmt::format(", parent {}", flag.parent);
    line += fmt::format(", effective {} of keys", Percent(EffectiveShareAt(i)));
    if (flag.dry_run) line += ", dry_run";
    if (flag.hash_version != 2) line += fmt::format(", hash_version {}", flag.hash_version);
    for (const auto& [name, on] : flag.features) line += fmt::format(", {} {}", name, on ? "on" : "off");
    state.lines.push_back(std::move(line));
    if (!flag.enabled) continue;
    for (int at = nodes_[i].parent; at >= 0; at = nodes_[at].parent) {
      const Flag& parent = spec_.flags[at];
      if (parent.enabled && parent.rollout_bps > 0 && !parent.dry_run) continue;
      state.warnings.push_back(fmt::format("{} is enabled but inert: its parent {} is {}", flag.key, parent.key,
                                           !parent.enabled           ? "disabled"
                                           : parent.rollout_bps == 0 ? "at 0 %"
                                                                     : "in dry_run"));
      break;
    }
  }
  return state;
}

}  // namespace sluice::flags
