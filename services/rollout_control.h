// Rollouts beside the way of a request: a thread that lets time pass for them, puts what they decide into the flags,
// obeys operators, and tells metrics, log and webhooks.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "config/rollout_file.h"
#include "engine/models/model_pool.h"
#include "flags/flag_sources.h"
#include "qos/breaker_registry.h"
#include "rollout/rollouts.h"
#include "services/clients/webhook.h"
#include "services/flag_control.h"
#include "services/rollout_arms.h"
#include "state/state_store.h"

namespace sluice::services {

// Thread-safety: thread-safe. Owns two threads: one waits for the store, the other one guards and never waits.
class RolloutControl {
 public:
  struct Parts {
    flags::FlagSources& flags;
    RolloutArms& arms;
    qos::BreakerRegistry& breakers;
    Webhooks& webhooks;
    MetricsRegistry& metrics;
    const Clock& clock;
    state::StateStore* store;  // null: there are no rollouts
    std::string replica;
    Duration session_ttl;            // a dead replica keeps what it held for so long
    rollout::CrashJournal* journal;  // null: crashes are not counted
    std::function<double()> rss_bytes;
  };
  // Metrics: sluice_rollout_percentage{flag}, sluice_rollout_stage{flag}, sluice_rollout_phase{flag,phase} (1 for the
  // present one), sluice_rollout_verdict{flag} (1 pass, 0 inconclusive, -1 fail), sluice_rollout_e_value{flag,check},
  // sluice_rollout_transitions_total{flag,to}, sluice_rollout_leader, sluice_rollout_store_stale,
  // sluice_rollout_reloads_total{result}.
  explicit RolloutControl(Parts parts);
  ~RolloutControl();

  // Takes over a file that was read, whole, or says why not; then the present one stays. Logged and counted.
  // Without a store no rollout can be started, and the log says so.
  absl::Status Reload(absl::StatusOr<config::RolloutFile> file, const std::string& cause) ABSL_LOCKS_EXCLUDED(mu_);

  // As Rollouts::Obey, on the thread. `done` is called once, on any thread. RESOURCE_EXHAUSTED: too many orders wait.
  using Done = std::function<void(absl::StatusOr<rollout::RolloutState>)>;
  struct Order {
    std::string flag;
    rollout::Order order = rollout::Order::kStart;
    Actor actor;
    std::optional<uint64_t> expected_epoch;
    bool force = false;
  };
  void Obey(Order order, Done done) ABSL_LOCKS_EXCLUDED(mu_);
  // On the thread, since it waits for the store.
  using EvidenceDone = std::function<void(absl::StatusOr<std::vector<std::string>>)>;
  void Evidence(std::string flag, EvidenceDone done) ABSL_LOCKS_EXCLUDED(mu_);

  rollout::Report Describe() const;

 private:
  void Enqueue(std::function<void()> work, const std::function<void(const absl::Status&)>& refuse)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  void Guard() ABSL_LOCKS_EXCLUDED(mu_);
  void Serve(const std::string& flag, const rollout::Serving& serving);
  void Tell(const std::string& flag, const rollout::Transition& transition);
  std::string Broken(const std::string& flag);
  void ReportCrash();
  void SetMetrics();

  const Parts parts_;
  std::unique_ptr<state::Election> election_;
  std::unique_ptr<rollout::Rollouts> rollouts_;  // null: there is no store
  Family<Gauge>&percentage_, &stage_, &phase_, &verdict_, &e_value_;
  Family<Counter>&transitions_, &reloads_;
  Gauge &leader_, &stale_;
  std::map<std::string, std::vector<std::string>> alerts_;  // flag → webhooks; the thread's
  bool crash_reported_ = false;                             // the guard's
  std::string crashing_attempt_;                            // likewise: the canary has crashed twice within its span
  std::string crashing_why_;
  std::string ttft_by_;  // attempt that ttft was served for last; under the lock of Rollouts that calls Serve

  mutable Mutex mu_;  // leaf
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t news_ ABSL_GUARDED_BY(mu_) = 0;  // how often the store had some
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  std::thread guard_, thread_;  // last: they use the others
};

// What `GET /rollout/v1/analysis?flag=F` answers, for Argo Rollouts' web provider: {"data": {"flag", "verdict": "pass"
// | "fail" | "inconclusive", "ok", "cause", "phase", "percent", "stage", "epoch"}}; nullopt: no such rollout. Pure.
std::optional<std::string> RolloutAnalysisJson(const rollout::Report& report, std::string_view flag);

}  // namespace sluice::services
