#include "services/state_setup.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "state/etcd/etcd_store.h"
#include "state/file_store.h"

namespace sluice::services {

absl::StatusOr<std::unique_ptr<state::StateStore>> OpenStateStore(const config::RuntimeConfig& config,
                                                                  const Clock& clock, std::function<double()> random,
                                                                  MetricsRegistry& metrics) {
  if (config.state.store == config::StateStoreKind::kEtcd) {
    const state::EtcdOptions& etcd = config.state.etcd;
    LogInfo("state store", {{"store", "etcd"}, {"endpoint", etcd.endpoints.front()}, {"prefix", etcd.prefix}});
    return state::EtcdStore::Open(etcd, clock, std::move(random), metrics);
  }
  if (config.state_folder.empty()) return nullptr;
  return state::FileStore::Open(config.state_folder);
}

}  // namespace sluice::services
