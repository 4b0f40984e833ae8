#include "services/server.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <random>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/file_watch.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/status.h"
#include "config/fault_file.h"
#include "engine/scheduler/compute_gate.h"
#include "engine/scheduler/scheduler_probe.h"
#include "flags/flag_gate.h"
#include "flags/flag_sources.h"
#include "fmt/format.h"
#include "qos/admission.h"
#include "qos/breaker_registry.h"
#include "qos/qos_engine.h"
#include "services/clients/flagd_sync.h"
#include "services/clients/webhook.h"
#include "services/decision_file.h"
#include "services/flag_control.h"
#include "services/grpc/grpc_server.h"
#include "services/qos_control.h"
#include "services/replica.h"
#include "services/request_flow.h"
#include "services/rollout_control.h"
#include "services/state_setup.h"
#include "services/telemetry/machine_readings.h"
#include "services/telemetry/metrics_endpoint.h"
#include "services/telemetry/request_probe.h"

namespace sluice::services {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(5);
constexpr size_t kKeptDecisions = 10'000;  // for sluicectl qos decisions

constexpr size_t kMaxBreakers = 256;

void LogTransition(std::string_view model, std::string_view pipeline, const qos::Transition& transition) {
  LogWarning("circuit breaker", {{"model", std::string(model)},
                                 {"pipeline", std::string(pipeline)},
                                 {"from", std::string(qos::BreakerStateName(transition.from))},
                                 {"to", std::string(qos::BreakerStateName(transition.to))},
                                 {"cause", std::string(qos::TransitionCauseName(transition.cause))},
                                 {"who", transition.who},
                                 {"why", transition.why}});
}

// Numbers in [0, 1).
std::function<double()> Randomness(uint64_t seed) {
  return [engine = std::mt19937_64(seed)]() mutable { return std::uniform_real_distribution<double>()(engine); };
}

qos::OverloadOptions NeverOverloaded() {
  constexpr qos::OverloadOptions::Triggers kNothing = {qos::kNever, qos::kNever, qos::kNever};
  return {.shed_batch = kNothing, .shed_standard = kNothing, .shrink_caches = kNothing, .refuse_all = kNothing};
}

std::shared_ptr<const qos::PolicySet> NoPolicies() {
  auto none = qos::PolicySet::Create({}, /*epoch=*/1);
  SLUICE_CHECK(none.ok(), "no policies are valid policies");
  return *std::move(none);
}

void LogChange(const flags::FlagChange& change, flags::Layer layer, const std::string& cause, uint64_t epoch) {
  LogInfo("flag changed", {{"flag", change.flag},
                           {"field", change.field},
                           {"before", change.before},
                           {"after", change.after},
                           {"layer", std::string(flags::LayerName(layer))},
                           {"cause", cause},
                           {"epoch", std::to_string(epoch), true}});
}

// One line, and one for each thing that now decides differently; or the reason why nothing changes.
void LogUpdate(const flags::FlagUpdate& update) {
  const std::string layer(flags::LayerName(update.layer));
  if (!update.status.ok()) {
    LogError("flags kept as they were",
             {{"layer", layer}, {"cause", update.cause}, {"error", std::string(update.status.message())}});
    return;
  }
  const std::string epoch = std::to_string(update.epoch);
  LogInfo("flags reloaded", {{"layer", layer},
                             {"cause", update.cause},
                             {"changes", std::to_string(update.changes.size()), true},
                             {"epoch", epoch, true}});
  for (const flags::FlagChange& change : update.changes) LogChange(change, update.layer, update.cause, update.epoch);
}

void LogFlags(const flags::FlagSet& set) {
  const flags::FlagSet::EffectiveState state = set.Describe();
  for (const std::string& line : state.lines) LogInfo("flag", {{"state", line}});
  for (const std::string& warning : state.warnings) LogWarning("flag", {{"warning", warning}});
}

}  // namespace

// Members in order of construction: each uses only what stands above it, and is destroyed before it.
struct Server::Impl {
  Impl(ServerParts p, std::shared_ptr<const flags::FlagSet> flag_set, std::unique_ptr<MetricsRegistry> r,
       std::unique_ptr<state::StateStore> s, std::unique_ptr<rollout::CrashJournal> j, const Clock& c)
      : parts(std::move(p)),
        clock(c),
        replica(ReplicaName(parts.runtime)),
        owned_registry(std::move(r)),
        registry(*owned_registry),
        engine_metrics(registry),
        request_probe(registry, clock, parts.runtime.log.flag_evaluations),
        gate(std::move(flag_set), registry),
        store(std::move(s)),
        stale_gauge(
            registry.AddGauge("sluice_flag_source_stale", "1 while a source of flags is out of reach", {"layer"})
                .With({"remote"})),
        flag_sources(gate, parts.flags, LogUpdate),
        flag_control(flag_sources, gate, store.get(), clock),
        admission(parts.runtime.admission, clock, registry),
        breakers(parts.runtime.breaker, clock, registry, kMaxBreakers, LogTransition),
        decision_file({.path = parts.runtime.decision_log_file, .max_bytes = parts.runtime.decision_log_max_bytes},
                      clock, registry),
        decisions(kKeptDecisions, parts.runtime.decision_log_file.empty() ? nullptr : &decision_file),
        policies(NoPolicies(), clock, registry),
        quotas({}, clock, registry, store.get()),
        overload(parts.runtime.overload.enabled ? parts.runtime.overload.triggers : NeverOverloaded(), registry),
        retries(parts.runtime.retry_budget, clock, registry),
        qos_engine({policies, quotas, admission, overload, retries, decisions, clock}),
        models(
            parts.runtime.models, parts.make_backend,
            [this](const engine::ModelSpec& spec, std::unique_ptr<engine::Backend> backend) {
              engine::SchedulerOptions options = parts.runtime.scheduler;
              options.model_name = spec.name;
              return std::make_unique<engine::Scheduler>(std::move(backend), options, clock, engine_metrics,
                                                         &compute_gate);
            },
            parts.probe, clock),
        journal(std::move(j)),
        arms(journal.get()),
        faults(parts.runtime.fault_file.empty()
                   ? nullptr
                   : std::make_unique<FaultInjection>(clock, Randomness(parts.jitter_seed))),
        flow({gate, qos_engine, breakers, models, arms, faults.get(), request_probe, clock},
             {.default_max_tokens = parts.runtime.default_max_tokens,
              .max_tokens_limit = parts.runtime.max_tokens_limit,
              .default_deadline = parts.runtime.admission.default_deadline,
              .drop_late = parts.runtime.admission.feasibility == qos::Feasibility::kEnforce,
              .targeting_key = TargetingKeyOrder(parts.runtime.flags.targeting_key)}),
        machine({.memory_limit_bytes = parts.runtime.overload.memory_limit_bytes}, clock),
        webhooks(parts.runtime.server.grpc_address, clock, Randomness(parts.jitter_seed), registry),
        qos_control({.engine = qos_engine,
                     .policies = policies,
                     .quotas = quotas,
                     .admission = admission,
                     .breakers = breakers,
                     .overload = overload,
                     .models = models,
                     .metrics = registry,
                     .clock = clock,
                     .read_pressure = [this] { return machine.Read().pressure; },
                     .webhooks = webhooks,
                     .concurrency_limit = parts.runtime.concurrency_limit}),
        rollout_control({.flags = flag_sources,
                         .arms = arms,
                         .breakers = breakers,
                         .webhooks = webhooks,
                         .metrics = registry,
                         .clock = clock,
                         .store = store.get(),
                         .replica = replica,
                         .session_ttl = parts.runtime.state.session_ttl,
                         .journal = journal.get(),
                         .rss_bytes = [this] { return static_cast<double>(machine.Read().memory_bytes); }}) {}

  std::string State() const { return draining ? "draining" : ready ? "ready" : "starting"; }
  absl::Status Reload(flags::Layer layer, const absl::Status& read, flags::LayerContent content,
                      const std::string& cause);
  absl::Status ReloadFlags(absl::StatusOr<flags::LayerContent> file, const std::string& cause);
  absl::Status FollowFlags();
  absl::Status FollowQos();
  absl::Status FollowRollouts();
  void MarkStaleFlags();
  void FollowSchedules();
  void KeepHouse();
  void WarmUp();
  void BecomeReady(const std::string& model);
  void WaitUntil(MonoTime end, const std::function<bool()>& done) ABSL_LOCKS_EXCLUDED(mu);

  const ServerParts parts;
  const Clock& clock;
  const std::string replica;
  const std::unique_ptr<MetricsRegistry> owned_registry;  // made before the store
  MetricsRegistry& registry;
  engine::EngineMetrics engine_metrics;
  engine::ComputeGate compute_gate;
  RequestProbe request_probe;
  flags::FlagGate gate;
  const std::unique_ptr<state::StateStore> store;  // null: nothing is kept
  Gauge& stale_gauge;
  flags::FlagSources flag_sources;
  FlagControl flag_control;
  qos::Admission admission;
  qos::BreakerRegistry breakers;
  DecisionFile decision_file;
  qos::DecisionLog decisions;
  qos::PolicyEngine policies;
  qos::Quotas quotas;
  qos::OverloadGuard overload;
  qos::RetryBudget retries;
  qos::QosEngine qos_engine;
  engine::ModelPool models;
  const std::unique_ptr<rollout::CrashJournal> journal;  // null: there is no store
  RolloutArms arms;
  const std::unique_ptr<FaultInjection> faults;  // null: none
  RequestFlow flow;
  MachineReadings machine;
  Webhooks webhooks;
  QosControl qos_control;
  RolloutControl rollout_control;
  std::unique_ptr<MetricsEndpoint> metrics;
  std::unique_ptr<GrpcServer> grpc;
  std::unique_ptr<FileWatch> flags_watch, qos_watch, rollouts_watch, faults_watch;
  std::unique_ptr<FlagdSync> flagd_sync;  // null: no control plane
  bool remote_stale = false;              // the housekeeper's

  std::atomic<bool> ready{false};     // atomic: read by handlers on any thread
  std::atomic<bool> draining{false};  // likewise
  std::atomic<int> cold{0};           // preloaded models that have not produced a token yet
  Mutex mu;
  CondVar wake;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  std::thread housekeeper;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerParts parts, const Clock& clock) {
  SLUICE_ASSIGN_OR_RETURN(auto flag_set, flags::FlagSet::Create(flags::MergeLayers(parts.flags), /*epoch=*/1));
  auto registry = std::make_unique<MetricsRegistry>();
  SLUICE_ASSIGN_OR_RETURN(auto store, OpenStateStore(parts.runtime, clock, Randomness(parts.jitter_seed), *registry));
  std::unique_ptr<rollout::CrashJournal> journal;
  if (store != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(journal, OpenCrashJournal(parts.runtime, clock.WallNow()));
  }
  auto impl = std::make_unique<Impl>(std::move(parts), std::move(flag_set), std::move(registry), std::move(store),
                                     std::move(journal), clock);
  LogFlags(*impl->gate.snapshot());
  Impl* const self = impl.get();
  if (!self->parts.runtime.decision_log_file.empty()) SLUICE_RETURN_IF_ERROR(self->decision_file.Open());
  const config::ServerOptions& options = self->parts.runtime.server;
  if (!options.metrics_address.empty()) {
    SLUICE_ASSIGN_OR_RETURN(self->metrics, MetricsEndpoint::Start(options.metrics_address, self->registry,
                                                                  [self] { self->breakers.List(); }));
  }
  SLUICE_ASSIGN_OR_RETURN(self->grpc, GrpcServer::Start(options, self->parts.keys,
                                                        {.flow = self->flow,
                                                         .models = self->models,
                                                         .gate = self->gate,
                                                         .flag_sources = self->flag_sources,
                                                         .flag_control = self->flag_control,
                                                         .admission = self->admission,
                                                         .policies = self->policies,
                                                         .quotas = self->quotas,
                                                         .decisions = self->decisions,
                                                         .qos_control = self->qos_control,
                                                         .breakers = self->breakers,
                                                         .rollout_control = self->rollout_control,
                                                         .clock = clock,
                                                         .targeting_key = self->parts.runtime.flags.targeting_key,
                                                         .request_drain =
                                                             [self](Duration grace) {
                                                               if (self->parts.on_drain_requested)
                                                                 self->parts.on_drain_requested(grace);
                                                             },
                                                         .state = [self] { return self->State(); }}));
  auto server = std::unique_ptr<Server>(new Server(std::move(impl)));
  SLUICE_RETURN_IF_ERROR(self->FollowFlags());
  SLUICE_RETURN_IF_ERROR(self->FollowQos());
  SLUICE_RETURN_IF_ERROR(self->FollowRollouts());
  self->housekeeper = std::thread([self] { self->KeepHouse(); });
  self->WarmUp();
  return server;
}

Server::~Server() {
  Drain(std::chrono::milliseconds(1));
  {
    MutexLock lock(impl_->mu);
    impl_->stopping = true;
  }
  impl_->wake.SignalAll();
  if (impl_->housekeeper.joinable()) impl_->housekeeper.join();
}

void Server::Impl::KeepHouse() {
  MutexLock lock(mu);
  while (!stopping) {
    mu.Unlock();
    admission.Tick();
    models.Tick();
    MarkStaleFlags();
    FollowSchedules();
    mu.Lock();
    wake.WaitFor(mu, kTick);
  }
}

// Readiness means: each preloaded model has produced a real token, so the first user does not pay for a cold start.
void Server::Impl::WarmUp() {
  int preloaded = 0;
  for (const engine::ModelSpec& spec : parts.runtime.models.models) preloaded += spec.preload ? 1 : 0;
  cold = preloaded;
  if (preloaded == 0) BecomeReady("");
  for (const engine::ModelSpec& spec : parts.runtime.models.models) {
    if (!spec.preload) continue;
    models.AcquireOrLoad(spec.name, kInfiniteFuture, [this, name = spec.name](absl::StatusOr<engine::ModelHandle> m) {
      if (!m.ok()) {
        LogError("not ready", {{"model", name}, {"error", std::string(m.status().message())}});
        return;
      }
      auto prompt = (*m)->tokenizer().Tokenize("Hello", /*add_special=*/true, /*parse_special=*/false);
      if (!prompt.ok()) return;
      auto stream = (*m)->scheduler().Submit({.request_id = "warm-up",
                                              .prompt = *std::move(prompt),
                                              .max_tokens = 1,
                                              .submitted = clock.Now(),
                                              .policy = engine::BaselinePolicy()},
                                             [this, name](const engine::GenerationSummary& summary) {
                                               if (summary.status.ok()) BecomeReady(name);
                                             });
      if (!stream.ok()) LogError("warm-up failed", {{"model", name}, {"error", stream.status().ToString()}});
    });
  }
}

void Server::Impl::BecomeReady(const std::string& model) {
  if (!model.empty() && cold.fetch_sub(1) > 1) return;
  if (draining) return;
  ready = true;
  grpc->SetReady(true);
  LogInfo("ready", {{"grpc_port", std::to_string(grpc->port()), true},
                    {"metrics_port", std::to_string(metrics == nullptr ? 0 : metrics->port()), true}});
}

void Server::Impl::WaitUntil(MonoTime end, const std::function<bool()>& done) {
  while (clock.Now() < end && !done()) {
    MutexLock lock(mu);
    wake.WaitFor(mu, kTick);
  }
}

int Server::grpc_port() const { return impl_->grpc->port(); }

int Server::metrics_port() const { return impl_->metrics == nullptr ? 0 : impl_->metrics->port(); }

std::string Server::state() const { return impl_->State(); }

// Files and control plane, from now on.
absl::Status Server::Impl::FollowFlags() {
  if (!parts.flag_files.yaml.empty()) {
    const auto reload = [this] { (void)ReloadFlags(LoadFlagFiles(parts.flag_files), "file changed"); };
    SLUICE_ASSIGN_OR_RETURN(flags_watch, FileWatch::Start({.paths = parts.flag_files.paths()},
                                                          [reload](const std::vector<std::string>&) { reload(); }));
    reload();  // what changed between main's look at the files and the watch
  }
  const config::FlagOptions::Sync& sync = parts.runtime.flags.sync;
  if (sync.target.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(
      flagd_sync, FlagdSync::Start({.target = sync.target,
                                    .provider_id = "sluice",
                                    .selector = sync.selector,
                                    .tls = sync.tls,
                                    .ca_file = sync.ca_file,
                                    .certificate_file = sync.certificate_file,
                                    .key_file = sync.key_file,
                                    .stale_after = sync.stale_after},
                                   clock, Randomness(parts.jitter_seed), [this](absl::StatusOr<RemoteFlags> remote) {
                                     flags::LayerContent content;
                                     if (remote.ok()) content.flags = remote->definitions.flags;
                                     (void)Reload(flags::Layer::kRemote, remote.status(), std::move(content),
                                                  "flagd sync");
                                   }));
  return absl::OkStatus();
}

absl::Status Server::Impl::FollowQos() {
  if (parts.qos) SLUICE_RETURN_IF_ERROR(qos_control.Reload(*parts.qos, "start"));
  if (parts.qos_file.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(qos_watch,
                          FileWatch::Start({.paths = {parts.qos_file}}, [this](const std::vector<std::string>&) {
                            (void)qos_control.Reload(config::LoadQosFile(parts.qos_file, /*epoch=*/1), "file changed");
                          }));
  return absl::OkStatus();
}

absl::Status Server::Impl::FollowRollouts() {
  SLUICE_RETURN_IF_ERROR(rollout_control.Reload(parts.rollouts, "start"));
  if (!parts.rollouts_file.empty()) {
    SLUICE_ASSIGN_OR_RETURN(
        rollouts_watch, FileWatch::Start({.paths = {parts.rollouts_file}}, [this](const std::vector<std::string>&) {
          (void)rollout_control.Reload(config::LoadRolloutFile(parts.rollouts_file), "file changed");
        }));
  }
  if (faults == nullptr) return absl::OkStatus();
  const auto inject = [this] {
    auto read = config::LoadFaultFile(parts.runtime.fault_file);
    if (read.ok()) return faults->Set(*std::move(read));
    LogError("injected faults kept as they were", {{"error", std::string(read.status().message())}});
  };
  SLUICE_ASSIGN_OR_RETURN(faults_watch, FileWatch::Start({.paths = {parts.runtime.fault_file}},
                                                         [inject](const std::vector<std::string>&) { inject(); }));
  inject();
  return absl::OkStatus();
}

void Server::Impl::FollowSchedules() {
  for (const flags::FlagChange& change : gate.PassTime(clock.WallNow())) {
    LogChange(change, change.layer, "schedule", gate.snapshot()->epoch());
  }
}

void Server::Impl::MarkStaleFlags() {
  if (flagd_sync == nullptr) return;
  const FlagdSync::Status status = flagd_sync->status();
  if (status.stale == remote_stale) return;
  remote_stale = status.stale;
  flag_sources.MarkStale(flags::Layer::kRemote, status.stale);
  stale_gauge.Set(status.stale ? 1 : 0);
  if (status.stale) {
    LogWarning("flags may be out of date: the control plane is out of reach", {{"error", status.last_error}});
  } else {
    LogInfo("flags are up to date again: the control plane answers", {});
  }
}

absl::Status Server::Impl::Reload(flags::Layer layer, const absl::Status& read, flags::LayerContent content,
                                  const std::string& cause) {
  if (read.ok()) return flag_sources.SetLayer(layer, std::move(content), cause);
  gate.CountFailedReload();
  LogUpdate({.layer = layer, .cause = cause, .status = read});
  return read;
}

absl::Status Server::Impl::ReloadFlags(absl::StatusOr<flags::LayerContent> file, const std::string& cause) {
  const absl::Status read = file.status();
  return Reload(flags::Layer::kFile, read, read.ok() ? *std::move(file) : flags::LayerContent(), cause);
}

absl::Status Server::ReloadFlags(absl::StatusOr<flags::LayerContent> file, const std::string& cause) {
  return impl_->ReloadFlags(std::move(file), cause);
}

absl::Status Server::ReloadQos(absl::StatusOr<config::QosFile> file, const std::string& cause) {
  return impl_->qos_control.Reload(std::move(file), cause);
}

absl::Status Server::ReloadRollouts(absl::StatusOr<config::RolloutFile> file, const std::string& cause) {
  return impl_->rollout_control.Reload(std::move(file), cause);
}

void Server::Drain(Duration grace) {
  Impl& impl = *impl_;
  if (impl.draining.exchange(true)) return;
  const config::ServerOptions& options = impl.parts.runtime.server;
  if (grace == Duration::zero()) grace = options.drain_grace;
  const MonoTime end = SaturatingAdd(impl.clock.Now(), grace);
  LogInfo("draining", {{"grace_ms", fmt::format("{:.0f}", ToMillis(grace)), true},
                       {"running", std::to_string(impl.admission.running()), true}});
  impl.grpc->SetReady(false);
  impl.grpc->EndEventStreams();
  impl.WaitUntil(std::min(SaturatingAdd(impl.clock.Now(), options.drain_delay), end), [] { return false; });
  impl.admission.StartDrain(/*retry_after=*/std::chrono::seconds(1));
  impl.WaitUntil(end, [&impl] { return impl.admission.running() == 0 && impl.grpc->open_streams() == 0; });
  const int cut_off = impl.admission.running();
  impl.grpc->Shutdown(std::max(end - impl.clock.Now(), Duration(std::chrono::milliseconds(100))));
  LogInfo("drained", {{"cut_off", std::to_string(cut_off), true}});
}

}  // namespace sluice::services
