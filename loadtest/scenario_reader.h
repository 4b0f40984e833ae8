// Parts of a scenario file that other files have as well. See config/yaml_reader.h for how faults are collected.
#pragma once

#include "config/yaml_reader.h"
#include "loadtest/scenario.h"

namespace sluice::loadtest {

// One entry of `engines:`.
void ReadEngine(config::Section& section, EngineSpec* out);

}  // namespace sluice::loadtest
