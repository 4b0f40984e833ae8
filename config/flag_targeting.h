// The part of a flag's section that goes beyond a percentage: variants, rules, lists, schedule.
#pragma once

#include "config/yaml_reader.h"
#include "flags/flag.h"

namespace sluice::config {

// Declares `variants`, `rules`, `allow`, `deny` and `schedule` of the section, and reads them into the flag.
void ReadTargeting(Section& section, flags::Flag* flag);

}  // namespace sluice::config
