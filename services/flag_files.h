// The file layer of flags: our YAML, and beside it definitions in flagd's JSON.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/config_loader.h"
#include "flags/layers.h"

namespace sluice::services {

struct FlagFiles {
  std::string yaml;   // never empty
  std::string flagd;  // empty: none

  std::vector<std::string> paths() const;
};

// Blocks. Both files whole and valid, or the faults of the first that is not. INVALID_ARGUMENT also when both define
// one flag.
absl::StatusOr<flags::LayerContent> LoadFlagFiles(const FlagFiles& files);

// What a process starts with: defaults, these files, the environment.
absl::StatusOr<flags::Layers> LoadFlagLayers(const FlagFiles& files, const config::Environment& env);

}  // namespace sluice::services
