// The command line of sluice-server.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "config/server_config.h"

namespace sluice::services {

enum class ServerCommand { kServe, kCheck, kHelp, kProbeModel, kQuantize };

inline constexpr const char* kDefaultRollouts = "config/rollouts.yaml";

struct ServerArgs {
  ServerCommand command = ServerCommand::kServe;
  std::string config_file = "config/runtime.yaml";
  std::string flags_file = "config/feature-flags.yaml";
  std::string qos_file = "config/qos-policies.yaml";
  std::string rollouts_file;                                 // empty: kDefaultRollouts where it exists, else none
  std::string api_keys_file, grpc_address, metrics_address;  // empty: as configured
  std::vector<std::pair<std::string, std::string>> models;   // NAME=PATH
  std::vector<std::string> positional;
  uint64_t probe_max_bytes = 0, probe_max_seconds = 0;
};

// INVALID_ARGUMENT saying which argument is wrong and pointing to --help.
absl::StatusOr<ServerArgs> ParseServerArgs(const std::vector<std::string>& arguments);

// The command line wins over file and environment.
void ApplyArgs(const ServerArgs& args, config::RuntimeConfig& runtime);

const char* ServerHelp();

}  // namespace sluice::services
