// What may be wrong with a set of flags: one check for files, remote sources and FlagSet::Create.
#pragma once

#include <string>
#include <vector>

#include "flags/flag.h"

namespace sluice::flags {

struct FlagFault {
  std::string flag, field;  // field: as in the YAML
  std::string what, allowed;
};

// Duplicate or empty keys, percentages above 100 % or (hash_version 1) finer than 1 %, unknown parents, cycles of
// parents, a nested share with a salt or hash_version that is not the parent's, schedules that end before they start,
// variants without a value or a weight, rules without a condition or with an unknown variant.
std::vector<FlagFault> FindFlagFaults(const std::vector<Flag>& flags);

// The index of the flag whose salt and hash_version flag `index` hashes with: itself, or up its nested parents.
// Requires: no faults (with faults: some index).
size_t BucketOwner(const std::vector<Flag>& flags, size_t index);

}  // namespace sluice::flags
