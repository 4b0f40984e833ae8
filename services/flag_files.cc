#include "services/flag_files.h"

#include <algorithm>

#include "base/files.h"
#include "base/log.h"
#include "base/status.h"
#include "flags/flagd/definitions.h"
#include "fmt/format.h"

namespace sluice::services {

std::vector<std::string> FlagFiles::paths() const {
  std::vector<std::string> paths = {yaml};
  if (!flagd.empty()) paths.push_back(flagd);
  return paths;
}

absl::StatusOr<flags::LayerContent> LoadFlagFiles(const FlagFiles& files) {
  SLUICE_ASSIGN_OR_RETURN(flags::LayerContent content, config::LoadFlagFile(files.yaml));
  if (files.flagd.empty()) return content;
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(files.flagd));
  auto definitions = flags::flagd::ParseDefinitions(text);
  if (!definitions.ok()) {
    return absl::Status(definitions.status().code(),
                        fmt::format("{}: {}", files.flagd, std::string(definitions.status().message())));
  }
  for (const std::string& warning : definitions->warnings) {
    LogWarning("flag", {{"file", files.flagd}, {"warning", warning}});
  }
  for (flags::Flag& flag : definitions->flags) {
    const bool twice = std::any_of(content.flags.begin(), content.flags.end(),
                                   [&](const flags::Flag& other) { return other.key == flag.key; });
    if (twice) {
      return absl::InvalidArgumentError(
          fmt::format("{}: flags.{}: is in {} as well; allowed in one of them", files.flagd, flag.key, files.yaml));
    }
    content.flags.push_back(std::move(flag));
  }
  return content;
}

absl::StatusOr<flags::Layers> LoadFlagLayers(const FlagFiles& files, const config::Environment& env) {
  SLUICE_ASSIGN_OR_RETURN(flags::Layers layers, config::LoadFlagLayers(files.yaml, env));
  if (files.flagd.empty()) return layers;
  SLUICE_ASSIGN_OR_RETURN(layers[flags::Layer::kFile], LoadFlagFiles(files));
  return layers;
}

}  // namespace sluice::services
