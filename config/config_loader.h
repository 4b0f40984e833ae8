// YAML and environment → typed options. The only user of yaml-cpp.
// Every fault of a file is reported at once, each as "file:line: key: what is wrong; what is allowed". Unknown keys are
// faults (with the nearest known key as a hint), and so are duplicate keys, wrong types and values out of range.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "config/server_config.h"

namespace sluice::config {

// Reads an environment variable; nullptr when unset. Injected for tests.
using Environment = std::function<const char*(const char*)>;

// config/runtime.yaml; an empty path: the defaults. Keys of the seeds (streaming.maxConcurrentStreams,
// streaming.batchSize, ...) map to ours: see the table in docs/configuration.md. Environment over file:
// SLUICE_<PATH_OF_KEY> (server.grpc_address → SLUICE_SERVER_GRPC_ADDRESS), MODEL_PATH (path of the default model),
// MAX_CONCURRENT, PRELOAD_MODEL. An unknown SLUICE_* variable that looks like a key (nearest match) is a fault as well;
// SLUICE_CACHE and SLUICE_TEST_* are not ours.
// `models`: NAME=PATH pairs of the command line, replacing or adding to the file's models; an empty name: the default
// model. Says nothing about rules that span keys: call ValidateRuntime on the result.
absl::StatusOr<RuntimeConfig> LoadRuntimeConfig(const std::string& path, const Environment& env,
                                                const std::vector<std::string>& all_env_names,
                                                const std::vector<std::pair<std::string, std::string>>& models);

// The layers of flags that a process starts with. The default: phase5, ttft_pipeline and qos_policy, all off.
flags::LayerContent DefaultFlags();
// config/feature-flags.yaml, whole by itself: what FlagSet::Create would refuse is a fault with its line here.
absl::StatusOr<flags::LayerContent> LoadFlagFile(const std::string& path);
// PHASE5_ENABLED, PHASE5_TTFT_ENABLED, PHASE5_QOS_ENABLED and PHASE5_ROLLOUT_PERCENT.
absl::StatusOr<flags::LayerContent> LoadFlagVariables(const Environment& env);
// The three as kDefault, kFile and kEnv, with the faults of both together.
absl::StatusOr<flags::Layers> LoadFlagLayers(const std::string& path, const Environment& env);
// MergeLayers of these.
absl::StatusOr<flags::FlagSetSpec> LoadFlagSpec(const std::string& path, const Environment& env);

// config/api_keys.yaml.
absl::StatusOr<std::vector<ApiKey>> LoadApiKeys(const std::string& path);

// Rules that span keys: a bind beyond loopback needs TLS and api_keys unless insecure; TLS files come in pairs; an mTLS
// CA needs TLS; drain_grace within limits; at least one model.
absl::Status ValidateRuntime(const RuntimeConfig& config);

}  // namespace sluice::config
