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
  // of parents, hash_version not 1 or 2.
  static absl::StatusOr<std::shared_ptr<const FlagSet>> Create(FlagSetSpec spec, uint64_t epoch);

  // Pure; no allocation, no lock. An unknown flag is out with kUnknownFlag.
  Decision Evaluate(std::string_view flag, const EvaluationContext& context) const;

  // True when the decision is in (and not dry_run) and the flag's sub-switch is on.
  bool FeatureOn(const Decision& decision, std::string_view feature) const;

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
  FlagSet(FlagSetSpec spec, uint64_t epoch);
  const FlagSetSpec spec_;
  const uint64_t epoch_;
};

}  // namespace sluice::flags
