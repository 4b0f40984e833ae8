// The whole server as one object: what main runs and what integration tests start in-process.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "config/qos_file.h"
#include "config/rollout_file.h"
#include "config/server_config.h"
#include "engine/models/model_pool.h"
#include "flags/layers.h"
#include "services/flag_files.h"

namespace sluice::services {

struct ServerParts {
  config::RuntimeConfig runtime;
  flags::Layers flags;                 // default, file and env
  FlagFiles flag_files;                // reloaded when they change; without yaml: never
  std::optional<config::QosFile> qos;  // policies and quotas; nullopt: none
  std::string qos_file;                // where they were read from: reloaded when it changes; empty: never
  config::RolloutFile rollouts;
  std::string rollouts_file;  // as qos_file
  std::vector<config::ApiKey> keys;
  engine::BackendFactory make_backend;
  engine::FileProbe probe;
  uint64_t jitter_seed = 1;  // of the pauses before a retry: another one in each replica
  // AdminService.Drain was called: main drains with that grace (zero: the configured one). May be null.
  std::function<void(Duration grace)> on_drain_requested;
};

// Thread-safety: thread-safe.
class Server {
 public:
  // Builds everything and serves; models load in the background. Readiness turns on when each preloaded model produced
  // a real token. `clock` outlives the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerParts parts, const Clock& clock);
  ~Server();  // drains with no grace if nobody did

  int grpc_port() const;
  int metrics_port() const;  // 0: off
  // "starting", "ready", "draining".
  std::string state() const;

  // Replaces the file layer at once; the epoch goes up by one when that changes anything. The old set stays when `file`
  // is an error (of reading it) or makes the whole invalid: that is counted, logged and returned.
  absl::Status ReloadFlags(absl::StatusOr<flags::LayerContent> file, const std::string& cause);

  // Replaces policies and quotas; the present ones stay when `file` is an error, which is counted, logged and returned.
  absl::Status ReloadQos(absl::StatusOr<config::QosFile> file, const std::string& cause);

  // Replaces the rollouts' definitions, likewise.
  absl::Status ReloadRollouts(absl::StatusOr<config::RolloutFile> file, const std::string& cause);

  // Readiness off, refuse new work with UNAVAILABLE (DRAINING), let open calls finish within `grace` (zero: the
  // configured one), cancel the rest. Blocks; idempotent.
  void Drain(Duration grace);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
