#include "services/qos_control.h"

#include <algorithm>
#include <limits>

#include "base/files.h"
#include "base/log.h"
#include "base/status.h"
#include "fmt/format.h"
#include "services/qos_facts.h"

namespace sluice::services {
namespace {

constexpr uint64_t kMaxSecretBytes = 4096;
constexpr Duration kSyncInterval = std::chrono::seconds(1);

absl::StatusOr<std::vector<WebhookOptions>> WebhooksOf(const config::QosFile& file) {
  std::vector<WebhookOptions> webhooks;
  for (const config::AlertWebhook& alert : file.alerts) {
    WebhookOptions& webhook = webhooks.emplace_back();
    webhook.name = alert.name;
    webhook.url = alert.url;
    webhook.timeout = alert.timeout;
    webhook.max_attempts = alert.max_retries + 1;
    webhook.dedup_window = alert.dedup_window;
    if (alert.secret_file.empty()) continue;
    SLUICE_ASSIGN_OR_RETURN(webhook.secret, ReadTextFile(alert.secret_file, kMaxSecretBytes));
    while (webhook.secret.ends_with('\n') || webhook.secret.ends_with('\r')) webhook.secret.pop_back();
  }
  return webhooks;
}

// What all engines together show: the fullest memory, and how congested the most congested one is.
struct EngineState {
  double kv_usage = -1;  // not known
  qos::CongestionSample congestion;
};

EngineState Look(const engine::ModelPool& models) {
  EngineState state;
  for (const engine::ModelHandle& model : models.Loaded()) {
    const qos::EngineLoad load = EngineLoadOf(model->scheduler().Status());
    state.kv_usage = std::max(state.kv_usage, load.kv_usage);
    const auto seconds = [](double amount, double rate) {
      return rate > 0 ? FromMillis(1000 * amount / rate) : Duration::zero();
    };
    // What a prompt that comes now waits for those before it: known at once, unlike the wait of those that ended.
    state.congestion.queue_wait =
        std::max(state.congestion.queue_wait,
                 seconds(static_cast<double>(load.uncomputed_prompt_tokens), load.prefill_tokens_per_second));
    if (load.running > 0) {
      state.congestion.time_per_token =
          std::max(state.congestion.time_per_token, seconds(load.running, load.decode_tokens_per_second));
    }
  }
  return state;
}

void LogOrder(const qos::ActionOrder& order) {
  LogWarning(order.begins ? "qos action" : "qos action ends",
             {{"policy", order.policy},
              {"action", DescribeAction(order.action)},
              {"step", fmt::to_string(order.step), true},
              {"metric", order.metric},
              {"value", fmt::format("{:.6g}", order.value), true},
              {"threshold", fmt::format("{:.6g}", order.threshold), true},
              {"dry_run", order.dry_run ? "true" : "false", true}});
}

}  // namespace

std::string DescribeAction(const qos::Action& action) {
  std::string text(qos::ActionName(action.kind));
  if (action.limit > 0) text += fmt::format(" {}", action.limit);
  if (!action.target.empty()) text += " " + action.target;
  for (int c = 0; c < qos::kQosClassCount; ++c) {
    if ((action.classes >> c & 1) != 0) text += fmt::format(" {}", qos::QosClassName(static_cast<qos::QosClass>(c)));
  }
  return text;
}

QosControl::QosControl(Parts parts)
    : parts_(std::move(parts)),
      epoch_gauge_(parts_.metrics.AddGauge("sluice_qos_epoch", "Of the policies in use").With({})),
      reloads_(parts_.metrics.AddCounter("sluice_qos_reloads_total", "Policy files read, by what became of them",
                                         {"result"})),
      limit_(parts_.concurrency_limit) {
  thread_ = std::thread([this] { Run(); });
}

QosControl::~QosControl() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.SignalAll();
  thread_.join();
}

void QosControl::Run() {
  MonoTime next_sync{};
  for (;;) {
    {
      MutexLock lock(mu_);
      if (!stopping_) wake_.WaitFor(mu_, interval_);
      if (stopping_) return;
    }
    Judge();
    if (parts_.clock.Now() < next_sync) continue;
    parts_.quotas.Sync();
    next_sync = SaturatingAdd(parts_.clock.Now(), kSyncInterval);
  }
}

void QosControl::Judge() {
  parts_.breakers.Tick();
  const qos::Pressure pressure = parts_.read_pressure();
  const qos::OverloadState before = parts_.overload.state(), overload = parts_.overload.Update(pressure);
  EngineState engines = Look(parts_.models);
  if (parts_.concurrency_limit.enabled) {
    engines.congestion.running = parts_.admission.running();
    parts_.admission.SetConcurrency(limit_.Update(engines.congestion));
  }
  const std::vector<qos::ActionOrder> orders =
      parts_.engine.Evaluate({.running = static_cast<double>(parts_.admission.running()),
                              .queued = static_cast<double>(parts_.admission.queued()),
                              .kv_usage = engines.kv_usage,
                              .memory = pressure[static_cast<size_t>(qos::Resource::kMemory)],
                              .cpu = pressure[static_cast<size_t>(qos::Resource::kCpu)]});
  bool unload = false;
  {
    MutexLock lock(mu_);
    report_.pressure = pressure;
    for (const qos::ActionOrder& order : orders) unload |= Perform(order);
  }
  if (overload != before) {
    LogWarning("overload", {{"resource", std::string(qos::ResourceName(overload.cause))},
                            {"refuse_batch", fmt::format("{:.2f}", overload.shed_batch), true},
                            {"refuse_standard", fmt::format("{:.2f}", overload.shed_standard), true},
                            {"refuse_all", fmt::format("{:.2f}", overload.refuse_all), true}});
    unload |= overload.shrink_caches > before.shrink_caches;
  }
  if (unload) parts_.models.UnloadIdle();
}

bool QosControl::Perform(const qos::ActionOrder& order) {
  LogOrder(order);
  const bool alert = order.action.kind == qos::ActionKind::kAlert;
  if (alert && order.begins) {
    // Told in dry_run as well: an alert is how people learn what would be done.
    parts_.webhooks.Post(order.action.target,
                         {.policy = order.policy,
                          .metric = order.metric,
                          .state = "violated",
                          .value = order.value,
                          .threshold = order.threshold,
                          .step = order.step,
                          .dry_run = order.dry_run,
                          .message = fmt::format("policy {}: {} is {:.6g}, the objective is {:.6g}", order.policy,
                                                 order.metric, order.value, order.threshold)});
  }
  if (order.dry_run) return false;
  switch (order.action.kind) {
    case qos::ActionKind::kQueue:
      parts_.admission.SetClassCaps(parts_.policies.class_caps());
      return false;
    case qos::ActionKind::kOpenCircuit:
      if (order.begins) OpenCircuits(order);
      return false;
    case qos::ActionKind::kUnloadIdleModels:
      return order.begins;
    case qos::ActionKind::kLimitMaxTokens:  // these hold for each request: PolicyEngine::Decide
    case qos::ActionKind::kSwitchPipeline:
    case qos::ActionKind::kShed:
    case qos::ActionKind::kPreferUpstream:
    case qos::ActionKind::kAlert:
      return false;
  }
  return false;
}

// It closes again by itself: after its time, half-open probes decide.
void QosControl::OpenCircuits(const qos::ActionOrder& order) {
  for (const qos::BreakerRegistry::Entry& entry : parts_.breakers.List()) {
    if (entry.pipeline != order.action.target) continue;
    parts_.breakers.Get(entry.model, entry.pipeline)
        .ForceState(qos::BreakerState::kOpen,
                    {.who = "policy", .why = order.policy, .open_for = order.action.duration});
  }
}

absl::Status QosControl::Reload(absl::StatusOr<config::QosFile> file, const std::string& cause) {
  MutexLock lock(mu_);
  absl::Status status = file.status();
  if (status.ok()) status = TakeOver(*file);
  report_.file_error = std::string(status.message());
  reloads_.With({status.ok() ? "taken" : "refused"}).Add();
  if (!status.ok()) {
    LogError("qos policies kept as they were", {{"cause", cause}, {"error", report_.file_error}});
    return status;
  }
  LogInfo("qos policies reloaded", {{"cause", cause},
                                    {"policies", fmt::to_string(file->policies->policies().size()), true},
                                    {"quotas", fmt::to_string(file->quotas.size()), true},
                                    {"epoch", fmt::to_string(epoch_), true}});
  return absl::OkStatus();
}

absl::Status QosControl::TakeOver(const config::QosFile& file) {
  SLUICE_ASSIGN_OR_RETURN(auto webhooks, WebhooksOf(file));
  SLUICE_ASSIGN_OR_RETURN(auto policies, qos::PolicySet::Create(file.policies->policies(), epoch_ + 1));
  SLUICE_RETURN_IF_ERROR(parts_.webhooks.Set(std::move(webhooks)));
  ++epoch_;
  interval_ = file.evaluation_interval;
  for (const qos::ActionOrder& order : parts_.policies.SetPolicies(std::move(policies))) Perform(order);
  parts_.quotas.SetRules(file.quotas);
  epoch_gauge_.Set(static_cast<double>(epoch_));
  return absl::OkStatus();
}

QosControl::Status QosControl::status() const {
  MutexLock lock(mu_);
  return report_;
}

}  // namespace sluice::services
