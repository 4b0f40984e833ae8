// An immutable, validated set of flags: what one epoch of configuration means.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "flags/flag.h"

namespace sluice::flags {

// As written by a source (config/ reads the YAML, the environment overrides are already applied).
struct FlagSetSpec {
  std::vector<Flag> flags;
  bool kill_switch = false;           // emergency: every flag is out
  bool rollback_to_baseline = false;  // emergency: ttft_pipeline and its children are out
};

// Thread-safety: immutable.
class FlagSet {
 public:
  // INVALID_ARGUMENT naming each fault: duplicate or empty key, percentage above 10000 bps, unknown parent, a cycle
  // of parents, hash_version not 1 or 2, a fraction of a percent with hash_version 1. An empty salt becomes the key.
  static absl::StatusOr<std::shared_ptr<const FlagSet>> Create(FlagSetSpec spec, uint64_t epoch);

  // Pure; no allocation, no lock. An unknown flag is out with kUnknownFlag. Nested: a child is in only when its parent
  // is in *and* its own percentage takes the key. `parent`: this set's decision on the flag's parent for the same
  // context, when it is known already (spares a hash); any other flag's decision is not looked at.
  // A flag with `targeting` may allocate; it is in when its variant's value is true, or no bool and not named "off".
  Decision Evaluate(std::string_view flag, const EvaluationContext& context, const Decision* parent = nullptr) const;

  // True when the decision is in (and not dry_run) and the flag's sub-switch is on.
  bool FeatureOn(const Decision& decision, std::string_view feature) const;

  // Share of all keys (0..1) that are in, parents and emergency switches included; 0 for an unknown flag. Flags of
  // different salts are independent, so their shares multiply (10 % of 10 % is 1 %); flags of one salt put a key into
  // the same bucket, so the smallest share holds.
  double EffectiveShare(std::string_view flag) const;

  uint64_t epoch() const { return epoch_; }
  const std::vector<Flag>& flags() const { return spec_.flags; }
  const FlagSetSpec& spec() const { return spec_; }

  // One line per flag saying its effective state, and a warning for each enabled child that its parent makes inert.
  // Logged at start and at each reload.
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
  };

  FlagSet(FlagSetSpec spec, uint64_t epoch);
  int IndexOf(std::string_view key) const;  // -1: unknown
  Decision EvaluateAt(int index, const EvaluationContext& context, const Decision* known_parent) const;
  double EffectiveShareAt(int index) const;

  const FlagSetSpec spec_;
  const uint64_t epoch_;
  std::vector<int> by_key_;  // indices of spec_.flags, ordered by key
  std::vector<Node> nodes_;
};

}  // namespace sluice::flags
