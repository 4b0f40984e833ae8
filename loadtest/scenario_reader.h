// Parts of a scenario file that other files have as well. See config/yaml_reader.h for how faults are collected.
#pragma once

#include "config/yaml_reader.h"
#include "loadtest/scenario.h"

namespace sluice::loadtest {

// One entry of `engines:`.
// A fault for each key that would make prompts of images.
void RefuseImages(config::Section& section);

void ReadEngine(config::Section& section, EngineSpec* out);

}  // namespace sluice::loadtest
