#include "flags/flag_set.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/status.h"
#include "flags/flag_faults.h"
#include "flags/targeting.h"
#include "fmt/format.h"

namespace sluice::flags {
namespace {

double Share(RolloutBps bps) { return static_cast<double>(bps) / kBuckets; }
double OwnShare(const Flag& flag) { return flag.enabled ? Share(flag.rollout_bps) : 0.0; }
std::string Percent(double share) { return fmt::format("{:.6g} %", share * 100); }

}  // namespace

absl::StatusOr<std::shared_ptr<const FlagSet>> FlagSet::Create(FlagSetSpec spec, uint64_t epoch) {
  std::vector<FieldViolation> faults;
  for (FlagFault& fault : FindFlagFaults(spec.flags)) {
    faults.push_back(
        {fmt::format("{}.{}", fault.flag, fault.field), fmt::format("{}; allowed {}", fault.what, fault.allowed)});
  }
  if (!faults.empty()) return InvalidFields(std::move(faults));
  for (Flag& flag : spec.flags) {
    if (flag.parent_share == ParentShare::kNested) continue;
    if (flag.salt.empty()) flag.salt = flag.key;
    if (flag.hash_version == 0) flag.hash_version = 2;
  }
  for (size_t i = 0; i < spec.flags.size(); ++i) {
    Flag& flag = spec.flags[i];
    const Flag& owner = spec.flags[BucketOwner(spec.flags, i)];
    flag.salt = std::string(owner.salt);
    flag.hash_version = owner.hash_version;
    for (Rule& rule : flag.rules) {
      for (Condition& condition : rule.when) condition.salt = fmt::format("{}-{}", flag.salt, rule.name);
    }
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
    nodes_[i].split_salt = "split-" + flags[i].salt;
    int weighted = 0;
    for (size_t v = 0; v < flags[i].variants.size(); ++v) {
      const Variant& variant = flags[i].variants[v];
      nodes_[i].weights += variant.weight;
      if (variant.name == "off") nodes_[i].off_variant = static_cast<int>(v);
      if (variant.weight > 0 && ++weighted == 1) nodes_[i].only_variant = static_cast<int>(v);
    }
    if (weighted > 1) nodes_[i].only_variant = -1;
    for (const Rule& rule : flags[i].rules) {
      for (const Condition& condition : rule.when) {
        if (condition.attribute == Condition::Attribute::kHeader) header_names_.push_back(condition.header);
      }
    }
  }
  for (const Flag& flag : flags) {
    if (flag.schedule.start) schedule_times_.push_back(*flag.schedule.start);
    if (flag.schedule.end) schedule_times_.push_back(*flag.schedule.end);
  }
  std::sort(schedule_times_.begin(), schedule_times_.end());
  for (const Flag& flag : flags) {
    if (flag.targeting == nullptr) continue;
    for (std::string& name : flag.targeting->HeaderNames()) {
      if (!IsSecretHeader(name)) header_names_.push_back(std::move(name));
    }
  }
  std::sort(header_names_.begin(), header_names_.end());
  header_names_.erase(std::unique(header_names_.begin(), header_names_.end()), header_names_.end());
}

bool FlagSet::CrossesSchedule(WallTime after, WallTime until) const {
  const auto next = std::upper_bound(schedule_times_.begin(), schedule_times_.end(), after);
  return next != schedule_times_.end() && *next <= until;
}

int FlagSet::IndexOf(std::string_view key) const {
  const auto it = std::lower_bound(by_key_.begin(), by_key_.end(), key,
                                   [&](int i, std::string_view k) { return spec_.flags[i].key < k; });
  return it != by_key_.end() && spec_.flags[*it].key == key ? *it : -1;
}

const Flag* FlagSet::Find(std::string_view key) const {
  const int index = IndexOf(key);
  return index < 0 ? nullptr : &spec_.flags[index];
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

bool FlagSet::SameBuckets(int a, int b) const {
  return spec_.flags[a].salt == spec_.flags[b].salt && spec_.flags[a].hash_version == spec_.flags[b].hash_version;
}

std::optional<double> FlagSet::ExpectedSplitShare(std::string_view flag) const {
  const int index = IndexOf(flag);
  if (index < 0) return std::nullopt;
  RolloutBps reach = kBuckets;  // the buckets that the ancestors leave
  for (int at = nodes_[index].parent; at >= 0; at = nodes_[at].parent) {
    if (!SameBuckets(at, index)) continue;
    const Flag& f = spec_.flags[at];
    if (f.targeting != nullptr || f.allow != nullptr || f.deny != nullptr || !f.rules.empty()) return std::nullopt;
    reach = std::min(reach, f.rollout_bps);
  }
  const RolloutBps own = spec_.flags[index].rollout_bps;
  if (own == 0 || own >= reach) return std::nullopt;
  return static_cast<double>(own) / reach;
}

double FlagSet::EffectiveShareAt(int index) const {
  if (nodes_[index].emergency) return 0.0;
  double share = 1.0;
  for (int at = index; at >= 0; at = nodes_[at].parent) {
    bool counted = false;  // a flag nearer to `index` hashes alike and took this one's share into its minimum
    for (int nearer = index; nearer != at; nearer = nodes_[nearer].parent) counted |= SameBuckets(nearer, at);
    if (counted) continue;
    double smallest = 1.0;
    for (int other = at; other >= 0; other = nodes_[other].parent) {
      if (SameBuckets(other, at)) smallest = std::min(smallest, OwnShare(spec_.flags[other]));
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
  for (const InertValue& inert : spec_.inert) {
    if (inert.layer > Layer::kRemote) state.warnings.push_back(flags::Describe(inert));
  }
  for (const int i : by_key_) {
    const Flag& flag = spec_.flags[i];
    std::string line =
        fmt::format("{}: {} ({}), {} ({})", flag.key, flag.enabled ? "enabled" : "disabled", LayerName(flag.layer),
                    Percent(Share(flag.rollout_bps)), LayerName(flag.rollout_layer));
    if (!flag.parent.empty()) line += fmt::format(", parent {}", flag.parent);
    line += fmt::format(", effective {} of keys", Percent(EffectiveShareAt(i)));
    if (flag.parent_share == ParentShare::kNested) line += " (nested)";
    if (flag.dry_run) line += ", dry_run";
    if (!flag.variants.empty()) line += fmt::format(", {} variants", flag.variants.size());
    if (!flag.rules.empty()) line += fmt::format(", {} rules", flag.rules.size());
    if (flag.allow != nullptr) line += fmt::format(", {} keys allowed", flag.allow->size());
    if (flag.deny != nullptr) line += fmt::format(", {} keys denied", flag.deny->size());
    if (flag.schedule.start) line += ", from " + TimeText(*flag.schedule.start);
    if (flag.schedule.end) line += ", until " + TimeText(*flag.schedule.end);
    if (flag.targeting != nullptr) line += ", decided by a program";
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
