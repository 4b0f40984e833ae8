// Who says what about the flags, and what holds in the end: emergency > rollback > env > override > rollout stage >
// remote > file > default.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "flags/flag_set.h"

namespace sluice::flags {

// What a layer says about a flag that another one defines.
struct FlagValues {
  std::optional<bool> enabled;
  std::optional<RolloutBps> rollout_bps;
  std::string enabled_by, rollout_by;  // for people, may be empty: "PHASE5_ENABLED", "alice"

  bool operator==(const FlagValues&) const = default;
};

// Emergency switches hold when any layer turns them on.
struct LayerContent {
  std::vector<Flag> flags;  // whole definitions: default, file and remote only. Their layers are set by the merge, but
                            // rollout_layer kDefault stays: the percentage was not given
  std::map<std::string, FlagValues> values;  // by flag
  bool kill_switch = false;
  bool rollback_to_baseline = false;
};

using Layers = std::map<Layer, LayerContent>;

// Pure. The highest layer that defines a flag gives all of it (a program of flagd's: all but parent, dry_run and
// sub-switches, which its format has no word for); then the highest layer that gives `enabled` or the
// percentage holds that. The result says who holds each, and lists what is inert thereby. Nothing is validated.
FlagSetSpec MergeLayers(const Layers& layers);

}  // namespace sluice::flags
