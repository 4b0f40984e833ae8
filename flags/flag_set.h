// An immutable, validated set of flags: what one epoch of configuration means.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "flags/explanation.h"
#include "flags/flag.h"

namespace sluice::flags {

// What all layers together say (flags/layers.h).
struct FlagSetSpec {
  std::vector<Flag> flags;
  bool kill_switch = false;           // emergency: every flag is out
  bool rollback_to_baseline = false;  // emergency: ttft_pipeline and its children are out
  std::vector<InertValue> inert;      // values that a higher layer pins
};

// Thread-safety: immutable.
class FlagSet {
 public:
  // INVALID_ARGUMENT naming each fault of FindFlagFaults (flag_faults.h). Fills in salts, hash versions and the salts
  // of conditions that are left out.
  static absl::StatusOr<std::shared_ptr<const FlagSet>> Create(FlagSetSpec spec, uint64_t epoch);

  // Pure; no allocation, no lock. An unknown flag is out with kUnknownFlag. In this order: emergency switches, enabled,
  // schedule, parent (a child is in only when its parent is), deny and allow list, rules, percentage, variant. A
  // percentage that the rollback layer set (for a flag with `targeting`: any layer from the rollout stage up) comes
  // first instead, and lets lists, rules and program only narrow it.
  // `parent`: this set's decision on the flag's parent for the same context, when it is known already (spares a hash);
  // any other flag's decision is not looked at.
  // A flag with `targeting` may allocate; it is in when its variant's value is true, or no bool and not named "off".
  // So are variants of ours. They are drawn by BucketV2("split-<salt>", key), in shares of their weights.
  Decision Evaluate(std::string_view flag, const EvaluationContext& context, const Decision* parent = nullptr) const;

  // The same decision, and everything that was looked at on the way. Allocates.
  Explanation ExplainFor(std::string_view flag, const EvaluationContext& context) const;

  // True when the decision is in (and not dry_run) and the flag's sub-switch is on.
  bool FeatureOn(const Decision& decision, std::string_view feature) const;

  // Share of all keys (0..1) that are in by percentages and emergency switches, parents included; lists, rules,
  // schedules and programs are not counted. 0 for an unknown flag. Flags of different salts are independent, so their
  // shares multiply (10 % of 10 % is 1 %); flags of one salt put a key into the same bucket, so the smallest share
  // holds.
  double EffectiveShare(std::string_view flag) const;

  // Among the keys that reach the flag's own percentage, the share that it should let in; nullopt when that is nobody
  // or everybody, or cannot be known because an ancestor with the same buckets has lists, rules or a program.
  std::optional<double> ExpectedSplitShare(std::string_view flag) const;

  const Flag* Find(std::string_view key) const;  // null: unknown
  // Does a flag's schedule begin or end in (after, until]?
  bool CrossesSchedule(WallTime after, WallTime until) const;
  // Those that rules look at, each once.
  const std::vector<std::string>& header_names() const { return header_names_; }
  uint64_t epoch() const { return epoch_; }
  const std::vector<Flag>& flags() const { return spec_.flags; }
  const FlagSetSpec& spec() const { return spec_; }

  // One line per flag saying its effective state, and a warning for each enabled child that its parent makes inert and
  // each inert value of the layers above the remote one. Logged at start and at each reload.
  struct EffectiveState {
    std::vector<std::string> lines;
    std::vector<std::string> warnings;
  };
  EffectiveState Describe() const;

 private:
  // Derived once for the flag at the same index of spec_.flags.
  struct Node {
    int parent = -1;         // index; -1: none
    bool emergency = false;  // an emergency switch holds it out
    int off_variant = -1;    // index of the variant named "off"; -1: none
    int only_variant = -1;   // index of the only variant with a weight; -1: several, or no variants
    uint64_t weights = 0;    // sum
    std::string split_salt;
  };

  FlagSet(FlagSetSpec spec, uint64_t epoch);
  int IndexOf(std::string_view key) const;  // -1: unknown
  // `trace` null: nobody asks why.
  Decision EvaluateAt(int index, const EvaluationContext& context, const Decision* known_parent,
                      Explanation* trace) const;
  void Choose(int index, const EvaluationContext& context, Decision* d, Explanation* trace) const;
  bool AskLists(const Flag& flag, const EvaluationContext& context, Decision* d, Explanation* trace) const;
  void ApplyRule(int index, const Rule& rule, const EvaluationContext& context, Decision* d, Explanation* trace) const;
  void DrawVariant(int index, const EvaluationContext& context, Decision* d, Explanation* trace) const;
  bool SameBuckets(int a, int b) const;
  double EffectiveShareAt(int index) const;

  const FlagSetSpec spec_;
  const uint64_t epoch_;
  std::vector<WallTime> schedule_times_;  // begins and ends, ascending
  std::vector<std::string> header_names_;
  std::vector<int> by_key_;  // indices of spec_.flags, ordered by key
  std::vector<Node> nodes_;
};

}  // namespace sluice::flags
