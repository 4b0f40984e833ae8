// What changed from one set to the next, in words.
#pragma once

#include <string>
#include <vector>

#include "flags/flag_set.h"

namespace sluice::flags {

struct FlagChange {
  std::string flag;           // "emergency" for the switches
  std::string field;          // as in the YAML; "rollout_percentage of override" for an inert value
  std::string before, after;  // "10 % (file)"; lists of keys as their size and a digest; empty: not there
  Layer layer;                // who holds the field now
};

// In the order of keys and fields; empty when both decide and explain alike. A program is compared by address.
std::vector<FlagChange> FindChanges(const FlagSetSpec& before, const FlagSetSpec& after);

// The schedules that begin or end in (after, until], as changes of the field "schedule" from "outside" to "inside" or
// back; a flag whose schedule was passed as a whole is not named.
std::vector<FlagChange> FindScheduleChanges(const FlagSet& set, WallTime after, WallTime until);

}  // namespace sluice::flags
