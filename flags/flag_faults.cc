#include "flags/flag_faults.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "fmt/format.h"

namespace sluice::flags {
namespace {

constexpr RolloutBps kBpsPerPercent = 100;
constexpr uint64_t kMaxWeights = 1'000'000;  // the draw multiplies with it

class FaultFinder {
 public:
  explicit FaultFinder(const std::vector<Flag>& flags) : flags_(flags) {
    for (size_t i = 0; i < flags.size(); ++i) by_key_.emplace(flags[i].key, i);
  }

  std::vector<FlagFault> Find() {
    for (size_t i = 0; i < flags_.size(); ++i) Check(i);
    return std::move(faults_);
  }

 private:
  void Fault(const Flag& flag, std::string field, std::string what, std::string allowed) {
    std::string name = flag.key.empty() ? fmt::format("flags[{}]", &flag - flags_.data()) : flag.key;
    faults_.push_back({std::move(name), std::move(field), std::move(what), std::move(allowed)});
  }

  void Check(size_t i) {
    const Flag& flag = flags_[i];
    if (flag.key.empty()) Fault(flag, "key", "is empty", "a key for every flag");
    if (!flag.key.empty() && by_key_.at(flag.key) < i) Fault(flag, "key", "appears more than once", "once");
    if (flag.hash_version < 0 || flag.hash_version > 2) {
      Fault(flag, "hash_version", fmt::format("got {}", flag.hash_version), "1 or 2");
    }
    CheckParent(i);
    CheckShare(i, "rollout_percentage", flag.rollout_bps);
    if (flag.schedule.start && flag.schedule.end && *flag.schedule.start >= *flag.schedule.end) {
      Fault(flag, "schedule", "ends before it starts", "a start before the end");
    }
    CheckVariants(flag);
    for (const Rule& rule : flag.rules) CheckRule(i, rule);
  }

  // Its 100 buckets cannot split finer, and rounding would expose more or fewer keys than somebody asked for.
  void CheckShare(size_t i, std::string field, RolloutBps bps) {
    if (bps > kBuckets) {
      Fault(flags_[i], std::move(field), "got " + PercentText(bps), "0 to 100 %");
    } else if (flags_[BucketOwner(flags_, i)].hash_version == 1 && bps % kBpsPerPercent != 0) {
      Fault(flags_[i], std::move(field), "got " + PercentText(bps), "whole percents, as hash_version is 1");
    }
  }

  void CheckParent(size_t i) {
    const Flag& flag = flags_[i];
    const bool nested = flag.parent_share == ParentShare::kNested;
    if (flag.parent.empty()) {
      if (nested) Fault(flag, "parent_share", "nested, but there is no parent", "nested with a parent only");
      return;
    }
    if (!by_key_.contains(flag.parent)) {
      Fault(flag, "parent", fmt::format("no flag is called \"{}\"", flag.parent), "a flag of this set");
    } else if (const std::string cycle = CycleFrom(i); !cycle.empty()) {
      Fault(flag, "parent", "parents form a cycle: " + cycle, "parents without a cycle");
    } else if (nested) {
      const Flag& owner = flags_[BucketOwner(flags_, i)];
      const std::string& salt = owner.salt.empty() ? owner.key : owner.salt;
      if (!flag.salt.empty() && flag.salt != salt) {
        Fault(flag, "hash_seed", fmt::format("\"{}\" contradicts parent_share nested", flag.salt),
              fmt::format("\"{}\" (that of {}), or none", salt, owner.key));
      }
      const int version = owner.hash_version == 0 ? 2 : owner.hash_version;
      if (flag.hash_version != 0 && flag.hash_version != version) {
        Fault(flag, "hash_version", fmt::format("{} contradicts parent_share nested", flag.hash_version),
              fmt::format("{} (that of {}), or none", version, owner.key));
      }
    }
  }

  // The cycle of parents that starts and ends at flag `start` ("a -> b -> a"), or empty.
  std::string CycleFrom(size_t start) const {
    std::string path = flags_[start].key;
    size_t at = start;
    for (size_t steps = 0; steps < flags_.size(); ++steps) {
      const auto next = by_key_.find(flags_[at].parent);
      if (next == by_key_.end() || next->second < start) return {};  // its first flag reports a cycle
      at = next->second;
      path += " -> " + flags_[at].key;
      if (at == start) return path;
    }
    return {};  // leads into a cycle without being part of it
  }

  void CheckVariants(const Flag& flag) {
    uint64_t weights = 0;
    for (const Variant& variant : flag.variants) {
      const auto same = [&](const Variant& v) { return v.name == variant.name; };
      if (variant.name.empty() || std::count_if(flag.variants.begin(), flag.variants.end(), same) > 1) {
        Fault(flag, "variants", fmt::format("the name \"{}\" is empty or given twice", variant.name), "a name once");
      }
      if (variant.value == nullptr) Fault(flag, "variants", variant.name + " has no value", "a value");
      weights += variant.weight;
    }
    if (!flag.variants.empty() && (weights == 0 || weights > kMaxWeights)) {
      Fault(flag, "variants", fmt::format("the weights sum up to {}", weights), fmt::format("1 to {}", kMaxWeights));
    }
  }

  void CheckRule(size_t i, const Rule& rule) {
    const Flag& flag = flags_[i];
    const std::string field = "rules." + rule.name;
    if (rule.when.empty()) Fault(flag, field, "has no condition", "at least one condition");
    for (const Condition& condition : rule.when) {
      if (condition.test == Condition::Test::kPercentage && condition.bps > kBuckets) {
        Fault(flag, field, "got " + PercentText(condition.bps), "0 to 100 %");
      }
      if (condition.test == Condition::Test::kIn && condition.values == nullptr) {
        Fault(flag, field, "has no values", "a list for every in");
      }
      if (condition.attribute == Condition::Attribute::kHeader && IsSecretHeader(condition.header)) {
        Fault(flag, field, fmt::format("the header \"{}\" carries a secret", condition.header), "other headers");
      }
    }
    if (rule.then == Rule::Then::kPercentage) CheckShare(i, field, rule.bps);
    const auto named = [&](const Variant& variant) { return variant.name == rule.variant; };
    if (rule.then == Rule::Then::kVariant && std::none_of(flag.variants.begin(), flag.variants.end(), named)) {
      Fault(flag, field, fmt::format("there is no variant \"{}\"", rule.variant), "a name under variants");
    }
  }

  const std::vector<Flag>& flags_;
  absl::flat_hash_map<std::string_view, size_t> by_key_;  // the first flag of each key
  std::vector<FlagFault> faults_;
};

}  // namespace

std::vector<FlagFault> FindFlagFaults(const std::vector<Flag>& flags) { return FaultFinder(flags).Find(); }

size_t BucketOwner(const std::vector<Flag>& flags, size_t index) {
  for (size_t steps = 0; steps < flags.size() && flags[index].parent_share == ParentShare::kNested; ++steps) {
    const auto parent =
        std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) { return flag.key == flags[index].parent; });
    if (parent == flags.end()) break;
    index = static_cast<size_t>(parent - flags.begin());
  }
  return index;
}

}  // namespace sluice::flags
