// What QoS does beside the way of a request: judges the policies a few times a second, does what they order, watches
// the machine, and follows the policy file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "config/qos_file.h"
#include "engine/models/model_pool.h"
#include "qos/breaker_registry.h"
#include "qos/concurrency_limit.h"
#include "qos/overload_guard.h"
#include "qos/qos_engine.h"
#include "services/clients/webhook.h"

namespace sluice::services {

// "limit_max_tokens 64", "shed batch standard", "queue 8 batch", "alert oncall": for people.
std::string DescribeAction(const qos::Action& action);

// Thread-safety: thread-safe. Owns a thread, which may wait for the state store that quotas share.
class QosControl {
 public:
  struct Parts {
    qos::QosEngine& engine;
    qos::PolicyEngine& policies;
    qos::Quotas& quotas;
    qos::Admission& admission;
    qos::BreakerRegistry& breakers;
    qos::OverloadGuard& overload;
    engine::ModelPool& models;
    MetricsRegistry& metrics;
    const Clock& clock;
    std::function<qos::Pressure()> read_pressure;  // of the machine; called on the thread
    Webhooks& webhooks;
    qos::ConcurrencyLimitOptions concurrency_limit;
  };
  // Metrics: sluice_qos_epoch, sluice_qos_reloads_total{result}.
  // Begins without policies: Reload brings them.
  explicit QosControl(Parts parts);
  ~QosControl();

  // Takes over a file that was read, whole, or says why not; then the present one stays. Logged and counted.
  absl::Status Reload(absl::StatusOr<config::QosFile> file, const std::string& cause) ABSL_LOCKS_EXCLUDED(mu_);

  struct Status {
    std::string file_error;  // why the newest file was not taken over
    qos::Pressure pressure{};
  };
  Status status() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  void Judge() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status TakeOver(const config::QosFile& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // True: idle models are to be unloaded, which takes time.
  bool Perform(const qos::ActionOrder& order) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OpenCircuits(const qos::ActionOrder& order);

  const Parts parts_;
  Gauge& epoch_gauge_;
  Family<Counter>& reloads_;

  mutable Mutex mu_;  // above the locks of admission, breakers, models and policies
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  Duration interval_ ABSL_GUARDED_BY(mu_) = std::chrono::milliseconds(250);
  Status report_ ABSL_GUARDED_BY(mu_);
  qos::ConcurrencyLimit limit_;  // the thread's
  std::thread thread_;           // last: it uses the others
};

}  // namespace sluice::services
