// Opens the state store that the configuration names.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "config/server_config.h"
#include "state/state_store.h"

namespace sluice::services {

// Null: none is configured, nothing is kept. With etcd it does not wait for it: the server starts without, with what
// its files say, and takes over what is there when etcd answers. `random` gives numbers in [0, 1); `clock` and
// `metrics` outlive the store. Errors: those of FileStore::Open and EtcdStore::Open.
absl::StatusOr<std::unique_ptr<state::StateStore>> OpenStateStore(const config::RuntimeConfig& config,
                                                                  const Clock& clock, std::function<double()> random,
                                                                  MetricsRegistry& metrics);

}  // namespace sluice::services
