#include "config/config_loader.h"

#include <algorithm>
#include <array>

#include "base/status.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "config/yaml_tree.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

constexpr int64_t kSecondMs = 1000, kHourMs = 3600 * kSecondMs, kDayMs = 24 * kHourMs;
constexpr size_t kPathBytes = 4096;
constexpr size_t kMaxModels = 64, kMaxEndpoints = 16, kEndpointBytes = 256;
constexpr int64_t kMostConcurrent = 100'000, kMostQueued = 1'000'000;
constexpr std::string_view kDefaultModelName = "default";

void ReadServer(Section server, ServerOptions* out) {
  server.GrpcAddress("grpc_address", /*may_be_empty=*/false, &out->grpc_address);
  server.Address("metrics_address", /*may_be_empty=*/true, &out->metrics_address);
  server.Bool("insecure", &out->insecure);
  server.Text("api_keys_file", kPathBytes, &out->api_keys_file);
  server.Integer("max_message_bytes", 1 << 10, 256 << 20, &out->max_message_bytes);
  server.Integer("max_metadata_bytes", 1 << 10, 1 << 20, &out->max_metadata_bytes);
  server.Integer("max_streams_per_connection", 1, 100'000, &out->max_streams_per_connection);
  server.Integer("max_flag_event_streams", 0, 100'000, &out->max_flag_event_streams);
  server.Millis("max_connection_age_ms", kSecondMs, 7 * kDayMs, &out->max_connection_age);
  server.Millis("max_connection_age_grace_ms", 0, kHourMs, &out->max_connection_age_grace);
  server.Millis("min_client_ping_interval_ms", kSecondMs, kHourMs, &out->min_client_ping_interval);
  server.Millis("drain_grace_ms", 0, kHourMs, &out->drain_grace);
  server.Millis("drain_delay_ms", 0, 600 * kSecondMs, &out->drain_delay);
  Section tls = server.Map("tls");
  tls.Text("certificate_file", kPathBytes, &out->tls.certificate_file);
  tls.Text("key_file", kPathBytes, &out->tls.key_file);
  tls.Text("client_ca_file", kPathBytes, &out->tls.client_ca_file);
  tls.Millis("reload_interval_ms", kSecondMs, kDayMs, &out->tls.reload_interval);
}

void ReadTargetingKey(Section& flags, std::vector<std::string>* out) {
  constexpr std::string_view kAllowed =
      "a list of user, conversation, tenant, request_id and header:<name>, lower case";
  if (flags.Texts("targeting_key", 8, 256, out) == Source::kDefault) return;
  if (out->empty()) flags.Fault("targeting_key", "is empty", kAllowed);
  for (const std::string& name : *out) {
    const bool word = name == "user" || name == "conversation" || name == "tenant" || name == "request_id";
    const bool header = name.starts_with(kHeaderKeyPrefix);
    const std::string what =
        header ? ParseHeaderName(std::string_view(name).substr(kHeaderKeyPrefix.size())).what : " is not known";
    if (!word && !what.empty()) flags.Fault("targeting_key", Quote(name) + what, kAllowed);
  }
}

void ReadReplicaId(Section& root, std::string* out) {  // Section::Name does not take "", which has a meaning here
  root.Text("replica_id", 128, out);
  if (!out->empty() && !ParseName(*out).value) root.Fault("replica_id", "is not a name", kNameAllowed);
}

void ReadFlagOptions(Section flags, FlagOptions* out) {
  ReadTargetingKey(flags, &out->targeting_key);
  flags.Text("flagd_file", kPathBytes, &out->flagd_file);
  Section sync = flags.Map("sync");
  sync.GrpcAddress("target", /*may_be_empty=*/true, &out->sync.target);
  sync.Text("selector", 256, &out->sync.selector);
  sync.Bool("tls", &out->sync.tls);
  sync.Text("ca_file", kPathBytes, &out->sync.ca_file);
  sync.Text("certificate_file", kPathBytes, &out->sync.certificate_file);
  sync.Text("key_file", kPathBytes, &out->sync.key_file);
  sync.Millis("stale_after_ms", kSecondMs, kHourMs, &out->sync.stale_after);
}

void ReadState(Section state, Variables& variables, StateConfig* out) {
  state.Choice<StateStoreKind>("store", {{"file", StateStoreKind::kFile}, {"etcd", StateStoreKind::kEtcd}},
                               &out->store);
  Section etcd = state.Map("etcd");
  etcd.Texts("endpoints", kMaxEndpoints, kEndpointBytes, &out->etcd.endpoints);
  variables.Read("SLUICE_STATE_ETCD_ENDPOINTS", "endpoints separated by ','", [out](std::string_view text, Source) {
    Parsed<std::string> checked = ParseText(text, kMaxEndpoints * kEndpointBytes);
    if (!checked.value) return checked.what;
    out->etcd.endpoints.clear();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      if (end > begin) out->etcd.endpoints.emplace_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    return std::string();
  });
  etcd.Text("prefix", kEndpointBytes, &out->etcd.prefix);
  etcd.Text("ca_file", kPathBytes, &out->etcd.ca_file);
  etcd.Text("cert_file", kPathBytes, &out->etcd.certificate_file);
  etcd.Text("key_file", kPathBytes, &out->etcd.key_file);
  etcd.Text("username", kEndpointBytes, &out->etcd.username);
  etcd.Text("password_file", kPathBytes, &out->etcd.password_file);
  etcd.Millis("timeout_ms", 100, 60 * kSecondMs, &out->etcd.timeout);
  etcd.Millis("session_ttl_ms", 2 * kSecondMs, kHourMs, &out->session_ttl);
}

void ReadDecisionLog(Section log, RuntimeConfig* out) {
  log.Text("file", kPathBytes, &out->decision_log_file);
  log.Integer("max_bytes", 1 << 20, int64_t{1} << 40, &out->decision_log_max_bytes);
}

void ReadLog(Section log, LogOptions* out) {
  log.Choice<LogFormat>("format", {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}, &out->format);
  log.Choice<LogLevel>("level",
                       {{"debug", LogLevel::kDebug},
                        {"info", LogLevel::kInfo},
                        {"warning", LogLevel::kWarning},
                        {"error", LogLevel::kError}},
                       &out->level);
  log.Choice<FlagEvaluations>(
      "flag_evaluations",
      {{"off", FlagEvaluations::kOff}, {"changes", FlagEvaluations::kChanges}, {"all", FlagEvaluations::kAll}},
      &out->flag_evaluations);
}

// Two seeds' keys and two variables speak of the same limit. The environment beats the file; two different numbers
// from the same place cannot both be meant.
struct Limit {
  int value = 0;  // 0: not given
  Source source = Source::kDefault;
};
bool Contradict(const Limit& a, const Limit& b) {
  return a.value > 0 && b.value > 0 && a.value != b.value && a.source == b.source;
}
int Stronger(const Limit& a, const Limit& b) {
  if (a.value == 0 || b.value == 0) return std::max(a.value, b.value);
  return a.source > b.source ? a.value : b.value;
}

void ReadConcurrency(Section& streaming, Variables& variables, Faults& faults, int* max_concurrent) {
  const Source source = streaming.Integer("maxConcurrentStreams", 1, kMostConcurrent, max_concurrent);
  int from_seed_variable = 0;
  const bool set = variables.Read("MAX_CONCURRENT", fmt::format("a whole number from 1 to {}", kMostConcurrent),
                                  [&](std::string_view text, Source) {
                                    const Parsed<int64_t> parsed = ParseInteger(text, 1, kMostConcurrent);
                                    from_seed_variable = static_cast<int>(parsed.value.value_or(0));
                                    return parsed.what;
                                  });
  if (!set) return;
  if (Contradict({*max_concurrent, source}, {from_seed_variable, Source::kEnvironment})) {
    faults.AddVariable(
        "MAX_CONCURRENT",
        fmt::format("{}, but SLUICE_STREAMING_MAX_CONCURRENT_STREAMS is {}", from_seed_variable, *max_concurrent),
        "one of them, or the same number");
  }
  *max_concurrent = from_seed_variable;
}

void ReadStreamingAndBatching(Section& root, Variables& variables, Faults& faults, RuntimeConfig* out) {
  constexpr int64_t kMostSequences = 4096, kMostTokens = 1 << 20;
  Section streaming = root.Map("streaming");
  Section batching = root.Map("batching");
  ReadConcurrency(streaming, variables, faults, &out->admission.max_concurrent);
  streaming.Millis("requestTimeout", 0, kDayMs, &out->admission.default_deadline);
  streaming.Integer("maxTokens", 1, kMostTokens, &out->max_tokens_limit);
  if (streaming.Integer("defaultMaxTokens", 1, kMostTokens, &out->default_max_tokens) == Source::kDefault) {
    out->default_max_tokens = std::min(out->default_max_tokens, out->max_tokens_limit);
  }
  Limit batch_size, max_batch_size;
  batch_size.source = streaming.Integer("batchSize", 0, kMostSequences, &batch_size.value);
  max_batch_size.source = batching.Integer("maxBatchSize", 0, kMostSequences, &max_batch_size.value);
  if (Contradict(batch_size, max_batch_size)) {
    batching.Fault("maxBatchSize",
                   fmt::format("{}, but streaming.batchSize is {}", max_batch_size.value, batch_size.value),
                   "one of them, or the same number");
  }
  bool enabled = true;
  batching.Bool("enabled", &enabled);
  out->scheduler.max_running = enabled ? Stronger(batch_size, max_batch_size) : 1;
}

void ReadModelCache(Section cache, engine::ModelPoolOptions* out) {
  cache.Integer("maxModels", 1, kMaxModels, &out->max_models);
  enum class Eviction { kLru } eviction;
  cache.Choice<Eviction>("evictionPolicy", {{"LRU", Eviction::kLru}}, &eviction);
  cache.Integer("memoryBudgetBytes", 0, int64_t{1} << 50, &out->memory_budget_bytes);
}

// Per-model keys; at the top they are the default of every model.
void ReadGeometry(Section& section, engine::KvGeometry* geometry, int* threads) {
  section.Integer("slots", 1, 4096, &geometry->slots);
  section.Integer("slot_context", 16, 1 << 20, &geometry->slot_context);
  section.Integer("threads", 0, 1024, threads);
}

void ReadEngine(Section engine, engine::SchedulerOptions* out, engine::ModelSpec* defaults) {
  constexpr int64_t kMostRows = 1 << 16;
  ReadGeometry(engine, &defaults->geometry, &defaults->threads);
  engine.Integer("max_queue", 0, 1'000'000, &out->max_queue);
  engine.Integer("max_batch_tokens", 1, kMostRows, &out->max_batch_tokens);
  engine.Millis("step_target_ms", 0, 60 * kSecondMs, &out->step_target);
  engine.Number("step_stretch", 1, 100, &out->step_stretch);
  engine.Integer("min_prefill_tokens", 1, kMostRows, &out->min_prefill_tokens);
  engine.Integer("idle_prefill_tokens", 1, kMostRows, &out->idle_prefill_tokens);
  engine.Integer("stream_buffer_tokens", 1, kMostRows, &out->stream_buffer_tokens);
  engine.Millis("slow_reader_timeout_ms", 1, kHourMs, &out->slow_reader_timeout);
}

// The ceiling is streaming.maxConcurrentStreams, which MAX_CONCURRENT may lower below what a file says here: then it
// holds for floor and start as well.
void ReadAdaptive(Section adaptive, int ceiling, qos::ConcurrencyLimitOptions* out) {
  out->ceiling = ceiling;
  adaptive.Bool("enabled", &out->enabled);
  adaptive.Integer("floor", 1, kMostConcurrent, &out->floor);
  adaptive.Integer("initial", 1, kMostConcurrent, &out->initial);
  out->floor = std::min(out->floor, ceiling);
  out->initial = std::min(out->initial, ceiling);
  adaptive.Integer("probe", 1, 1000, &out->probe);
  adaptive.Number("tolerance", 1, 10, &out->tolerance);
  adaptive.Number("smoothing", 0.01, 1, &out->smoothing);
  adaptive.Integer("long_window", 1, 100'000, &out->long_window);
  adaptive.Millis("queue_wait_target_ms", 1, kHourMs, &out->queue_wait_target);
}

void ReadClasses(Section classes, std::array<qos::ClassLimits, qos::kQosClassCount>* out) {
  for (int i = 0; i < qos::kQosClassCount; ++i) {
    Section section = classes.Map(qos::QosClassName(static_cast<qos::QosClass>(i)));
    qos::ClassLimits& limits = (*out)[i];
    section.Integer("max_queue", 0, kMostQueued, &limits.max_queue);
    section.Integer("max_queued_tokens", 0, int64_t{1} << 40, &limits.max_queued_tokens);
    section.Integer("max_queued_bytes", 0, int64_t{1} << 40, &limits.max_queued_bytes);
    section.Millis("queue_timeout_ms", 0, kHourMs, &limits.queue_timeout);
  }
}

// After ReadStreamingAndBatching, which reads max_concurrent.
void ReadAdmission(Section admission, qos::AdmissionOptions* out, qos::ConcurrencyLimitOptions* limit) {
  using qos::Feasibility, qos::QueueOrder;
  admission.Integer("max_queue", 0, kMostQueued, &out->max_queue);
  admission.Millis("queue_timeout_ms", 1, kHourMs, &out->queue_timeout);
  admission.Millis("starvation_after_ms", 1, kHourMs, &out->starvation_after);
  admission.Choice<QueueOrder>("order", {{"fcfs", QueueOrder::kFcfs}, {"shortest_first", QueueOrder::kShortestFirst}},
                               &out->order);
  admission.Choice<Feasibility>(
      "feasibility",
      {{"off", Feasibility::kOff}, {"dry_run", Feasibility::kDryRun}, {"enforce", Feasibility::kEnforce}},
      &out->feasibility);
  admission.Number("feasibility_tolerance", 1, 100, &out->feasibility_tolerance);
  ReadClasses(admission.Map("classes"), &out->classes);
  ReadAdaptive(admission.Map("adaptive"), out->max_concurrent, limit);
  out->min_concurrent = std::min(limit->floor, out->max_concurrent);
}

// Names and meaning of resilience4j, rates in percent as there.
void ReadBreaker(Section breaker, qos::BreakerOptions* out) {
  constexpr double kPercent = 100;
  constexpr int64_t kMostCalls = 1'000'000;
  double failure_rate = out->failure_rate_threshold * kPercent, slow_rate = out->slow_call_rate_threshold * kPercent;
  breaker.Number("failure_rate_threshold", 0.01, kPercent, &failure_rate);
  breaker.Number("slow_call_rate_threshold", 0.01, kPercent, &slow_rate);
  out->failure_rate_threshold = failure_rate / kPercent;
  out->slow_call_rate_threshold = slow_rate / kPercent;
  breaker.Millis("slow_call_duration_threshold_ms", 1, kHourMs, &out->slow_call_duration);
  breaker.Millis("slow_stall_duration_threshold_ms", 1, kHourMs, &out->slow_stall_duration);
  breaker.Integer("permitted_number_of_calls_in_half_open_state", 1, kMostCalls, &out->permitted_calls_in_half_open);
  breaker.Millis("max_wait_duration_in_half_open_state_ms", 0, kHourMs, &out->max_wait_in_half_open);
  breaker.Choice<qos::BreakerState>("transition_to_state_after_wait_duration",
                                    {{"open", qos::BreakerState::kOpen}, {"closed", qos::BreakerState::kClosed}},
                                    &out->state_after_half_open_wait);
  breaker.Choice<qos::WindowType>(
      "sliding_window_type",
      {{"count_based", qos::WindowType::kCountBased}, {"time_based", qos::WindowType::kTimeBased}},
      &out->sliding_window_type);
  const bool timed = out->sliding_window_type == qos::WindowType::kTimeBased;
  breaker.Integer("sliding_window_size", 1, timed ? 3600 : kMostCalls, &out->sliding_window_size);
  breaker.Integer("minimum_number_of_calls", 1, kMostCalls, &out->minimum_number_of_calls);
  // As resilience4j: a window of fewer calls than the minimum would otherwise never judge.
  if (!timed) out->minimum_number_of_calls = std::min(out->minimum_number_of_calls, out->sliding_window_size);
  breaker.Millis("wait_duration_in_open_state_ms", 1, kHourMs, &out->wait_in_open);
  breaker.Bool("automatic_transition_from_open_to_half_open_enabled", &out->automatic_transition_to_half_open);
  breaker.Choice<qos::BreakerState>("initial_state",
                                    {{"closed", qos::BreakerState::kClosed},
                                     {"disabled", qos::BreakerState::kDisabled},
                                     {"metrics_only", qos::BreakerState::kMetricsOnly},
                                     {"forced_open", qos::BreakerState::kForcedOpen}},
                                    &out->initial_state);
}

void ReadRetryBudget(Section budget, qos::RetryBudgetOptions* out) {
  constexpr double kPercent = 100;
  double percent = out->budget_ratio * kPercent;
  budget.Bool("enabled", &out->enabled);
  budget.Number("budget_percent", 0, kPercent, &percent);
  out->budget_ratio = percent / kPercent;
  budget.Integer("min_retries_per_second", 0, 1'000'000, &out->min_retries_per_second);
  budget.Integer("window_s", 1, 3600, &out->window_seconds);
}

// "85-95": grows from 85 % to 95 %; "98": whole from 98 % on; "never". What is wrong with it, or empty.
std::string ReadTrigger(std::string_view text, qos::Trigger* out) {
  if (text == "never") {
    *out = qos::kNever;
    return "";
  }
  const size_t dash = text.find('-');
  const Parsed<double> from = ParseNumber(text.substr(0, dash), 1, 100);
  const Parsed<double> to = dash == text.npos ? from : ParseNumber(text.substr(dash + 1), 1, 100);
  if (!from.value || !to.value) return from.value ? to.what : from.what;
  if (*from.value > *to.value) return fmt::format("{} falls", Quote(text));
  *out = {.scaling = *from.value / 100, .saturation = *to.value / 100};
  return "";
}

void ReadOverload(Section overload, OverloadConfig* out) {
  overload.Bool("enabled", &out->enabled);
  overload.Integer("memory_limit_bytes", 0, int64_t{1} << 50, &out->memory_limit_bytes);
  for (size_t i = 0; i < qos::kResourceCount; ++i) {
    Section resource = overload.Map(qos::ResourceName(static_cast<qos::Resource>(i)));
    const auto read = [&](std::string_view effect, qos::OverloadOptions::Triggers& triggers) {
      resource.Scalar(effect, /*literal=*/true, "percent of the limit, FROM-TO or FROM, 1 to 100; or never",
                      [&](std::string_view text, Source) { return ReadTrigger(text, &triggers[i]); });
    };
    read("shed_batch", out->triggers.shed_batch);
    read("shed_standard", out->triggers.shed_standard);
    read("shrink_caches", out->triggers.shrink_caches);
    read("refuse_all", out->triggers.refuse_all);
  }
}

std::vector<engine::ModelSpec>::iterator FindModel(std::vector<engine::ModelSpec>& models, const std::string& name) {
  return std::find_if(models.begin(), models.end(), [&](const engine::ModelSpec& m) { return m.name == name; });
}

void ReadModels(Section& root, const engine::ModelSpec& defaults, std::vector<engine::ModelSpec>* out) {
  root.Each("models", kMaxModels, [&](Section& item) {
    engine::ModelSpec model = defaults;
    item.Require("name", "a name that clients ask for");
    item.Name("name", &model.name);
    item.Text("path", kPathBytes, &model.path);
    ReadGeometry(item, &model.geometry, &model.threads);
    item.Bool("preload", &model.preload);
    item.Bool("pin", &model.pinned);
    item.Millis("idle_timeout_ms", 0, 7 * kDayMs, &model.idle_timeout);
    if (!model.name.empty() && FindModel(*out, model.name) != out->end()) {
      item.Fault("name", Quote(model.name) + " is the name of an earlier model", "one model with a name");
    }
    out->push_back(std::move(model));
  });
}

// The first model is the default one; it is made when there is none.
engine::ModelSpec& DefaultModel(const engine::ModelSpec& defaults, std::vector<engine::ModelSpec>* models) {
  if (models->empty()) {
    models->push_back(defaults);
    models->front().name = kDefaultModelName;
  }
  return models->front();
}

// File, then the seeds' variables, then the command line.
void OverrideModels(Variables& variables, const std::vector<std::pair<std::string, std::string>>& command_line,
                    const engine::ModelSpec& defaults, std::vector<engine::ModelSpec>* models) {
  std::string path;
  variables.Read("MODEL_PATH", "a GGUF file", [&](std::string_view text, Source) {
    Parsed<std::string> parsed = ParseText(text, kPathBytes);
    path = parsed.value.value_or("");
    return parsed.what;
  });
  if (!path.empty()) DefaultModel(defaults, models).path = path;
  bool preload = false;
  if (variables.ReadBool("PRELOAD_MODEL", &preload)) DefaultModel(defaults, models).preload = preload;
  for (const auto& [name, file] : command_line) {
    auto model = FindModel(*models, name.empty() ? DefaultModel(defaults, models).name : name);
    if (model == models->end()) {
      model = models->insert(model, defaults);
      model->name = name;
    }
    model->path = file;
  }
  // The shipped file names a default model without a file, for MODEL_PATH or --model to fill. When the command line
  // brought models of other names instead, that placeholder has served.
  const auto placeholder = FindModel(*models, std::string(kDefaultModelName));
  if (!command_line.empty() && placeholder != models->end() && placeholder->path.empty()) models->erase(placeholder);
}

}  // namespace

absl::StatusOr<RuntimeConfig> LoadRuntimeConfig(const std::string& path, const Environment& env,
                                                const std::vector<std::string>& all_env_names,
                                                const std::vector<std::pair<std::string, std::string>>& models) {
  YamlNode file{.kind = YamlNode::Kind::kMap};
  if (!path.empty()) {
    SLUICE_ASSIGN_OR_RETURN(file, LoadYamlFile(path));
  }
  Faults faults(path);
  Variables variables(env, faults);
  RuntimeConfig config;
  if (file.kind == YamlNode::Kind::kNull) faults.Add(0, "", "is empty", "keys and values, or {} for the defaults");
  {
    Section root(&file, file.line, "", faults, &variables);
    ReadServer(root.Map("server"), &config.server);
    ReadLog(root.Map("log"), &config.log);
    ReadStreamingAndBatching(root, variables, faults, &config);
    ReadModelCache(root.Map("model_cache"), &config.models);
    engine::ModelSpec defaults;
    ReadEngine(root.Map("engine"), &config.scheduler, &defaults);
    config.models.default_geometry = defaults.geometry;
    ReadModels(root, defaults, &config.models.models);
    root.Paths("model_roots", kMaxModels, &config.models.model_roots);
    ReadFlagOptions(root.Map("flags"), &config.flags);
    root.Text("state_folder", kPathBytes, &config.state_folder);
    ReadState(root.Map("state"), variables, &config.state);
    root.Text("fault_file", kPathBytes, &config.fault_file);
    ReadReplicaId(root, &config.replica_id);
    ReadDecisionLog(root.Map("decision_log"), &config);
    root.Text("probe_cache_dir", kPathBytes, &config.probe_cache_dir);
    ReadAdmission(root.Map("admission"), &config.admission, &config.concurrency_limit);
    ReadBreaker(root.Map("circuit_breaker"), &config.breaker);
    ReadRetryBudget(root.Map("retry_budget"), &config.retry_budget);
    ReadOverload(root.Map("overload"), &config.overload);
    OverrideModels(variables, models, defaults, &config.models.models);
  }
  variables.RefuseUnknown(
      all_env_names, {"server", "log", "streaming", "batching", "model_cache", "engine", "models", "flags", "state",
                      "decision_log", "admission", "circuit_breaker", "retry_budget", "overload"});
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return config;
}

}  // namespace sluice::config
