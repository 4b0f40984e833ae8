#include "config/config_loader.h"

#include "fmt/format.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using test::StatusIs;
using testing::ElementsAre;
using CommandLine = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<RuntimeConfig> Load(const std::string& text, const TestVariables& variables = {},
                                   const CommandLine& models = {}) {
  const TestFile file(text);
  const Environment environment = Env(variables);
  return LoadRuntimeConfig(file.path(), environment, NamesOf(variables), models);
}

std::vector<std::string> FaultsOf(const std::string& text, const TestVariables& variables = {}) {
  const TestFile file(text);
  return file.Lines(LoadRuntimeConfig(file.path(), Env(variables), NamesOf(variables), {}).status());
}

TEST(LoadRuntimeConfig, MapsTheSeedsKeys) {
  const auto config = Load(R"(
streaming:
  maxConcurrentStreams: 150
  batchSize: 4
  requestTimeout: 45000
  maxTokens: 512
  defaultMaxTokens: 64
model_cache:
  maxModels: 5
  evictionPolicy: LRU
  memoryBudgetBytes: 8589934592
batching:
  enabled: true
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->admission.max_concurrent, 150);
  EXPECT_EQ(config->scheduler.max_running, 4);
  EXPECT_EQ(config->admission.default_deadline, milliseconds(45000));
  EXPECT_EQ(config->max_tokens_limit, 512);
  EXPECT_EQ(config->default_max_tokens, 64);
  EXPECT_EQ(config->models.max_models, 5);
  EXPECT_EQ(config->models.memory_budget_bytes, 8589934592u);
}

TEST(LoadRuntimeConfig, BatchLimits) {
  const auto running = [](const std::string& text, const TestVariables& variables = {}) {
    const auto config = Load(text, variables);
    return config.ok() ? config->scheduler.max_running : -1;
  };
  EXPECT_EQ(running("{}"), 0);
  EXPECT_EQ(running("batching: {maxBatchSize: 8}"), 8);
  EXPECT_EQ(running("batching: {maxBatchSize: 8}\nstreaming: {batchSize: 8}"), 8);
  EXPECT_EQ(running("batching: {maxBatchSize: 8}\nstreaming: {batchSize: 0}"), 8);  // 0 = not given
  EXPECT_EQ(running("batching: {maxBatchSize: 8, enabled: false}"), 1);
  // The environment beats the file, whichever of the two names it uses.
  EXPECT_EQ(running("batching: {maxBatchSize: 8}", {{"SLUICE_STREAMING_BATCH_SIZE", "2"}}), 2);
  EXPECT_EQ(running("streaming: {batchSize: 8}", {{"SLUICE_BATCHING_MAX_BATCH_SIZE", "2"}}), 2);
  EXPECT_THAT(FaultsOf("streaming: {batchSize: 4}\nbatching:\n  maxBatchSize: 8\n"),
              ElementsAre("f.yaml:3: batching.maxBatchSize: 8, but streaming.batchSize is 4; allowed: one of them, or "
                          "the same number"));
}

TEST(LoadRuntimeConfig, OnlyLruEvicts) {
  EXPECT_THAT(FaultsOf("model_cache:\n  evictionPolicy: LFU\n"),
              ElementsAre("f.yaml:2: model_cache.evictionPolicy: \"LFU\" is not known; allowed: LRU"));
}

TEST(LoadRuntimeConfig, SmallTokenLimitLowersTheDefault) {
  const auto config = Load("streaming: {maxTokens: 100}");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->default_max_tokens, 100);
}

TEST(LoadRuntimeConfig, GrpcAloneListensOnAUnixSocket) {
  const auto config = Load("server: {grpc_address: 'unix:/run/sluice/grpc.sock'}");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->server.grpc_address, "unix:/run/sluice/grpc.sock");
  EXPECT_THAT(Load("server: {metrics_address: 'unix:/run/sluice/metrics.sock'}"),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("is not an address")));
}

TEST(LoadRuntimeConfig, TargetingKey) {
  const auto config = Load("flags: {targeting_key: ['header:x-account', tenant, user]}");
  ASSERT_THAT(config, IsOk());
  EXPECT_THAT(config->flags.targeting_key, ElementsAre("header:x-account", "tenant", "user"));
  EXPECT_THAT(Load("{}")->flags.targeting_key, ElementsAre("user", "conversation", "request_id"));
  constexpr char kAllowed[] =
      "; allowed: a list of user, conversation, tenant, request_id and header:<name>, lower case";
  const auto fault = [&](const std::string& list) {
    const std::vector<std::string> faults = FaultsOf("flags:\n  targeting_key: " + list + "\n");
    EXPECT_EQ(faults.size(), 1U) << list;
    return faults.empty() ? "" : faults[0];
  };
  EXPECT_EQ(fault("[]"), std::string("f.yaml:2: flags.targeting_key: is empty") + kAllowed);
  EXPECT_EQ(fault("[users]"), std::string("f.yaml:2: flags.targeting_key: \"users\" is not known") + kAllowed);
  EXPECT_THAT(fault("['header:X-Account']"), testing::HasSubstr("\"header:X-Account\" is not known"));
  EXPECT_THAT(fault("['header:authorization']"), testing::HasSubstr("carries a secret"));
}

TEST(LoadRuntimeConfig, StateStore) {
  const std::string text = R"(
state:
  store: etcd
  etcd:
    endpoints: ["https://a:2379", "https://b:2379"]
    prefix: /sluice/blue/
    ca_file: ca.pem
    cert_file: c.pem
    key_file: k.pem
    username: sluice
    password_file: password
    timeout_ms: 700
    session_ttl_ms: 3000
)";
  const auto config = Load(text);
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->state.store, StateStoreKind::kEtcd);
  EXPECT_THAT(config->state.etcd.endpoints, ElementsAre("https://a:2379", "https://b:2379"));
  EXPECT_EQ(config->state.etcd.prefix, "/sluice/blue/");
  EXPECT_EQ(config->state.etcd.certificate_file, "c.pem");
  EXPECT_EQ(config->state.etcd.timeout, milliseconds(700));
  EXPECT_EQ(config->state.session_ttl, milliseconds(3000));
  const auto replaced = Load(text, {{"SLUICE_STATE_ETCD_ENDPOINTS", "https://c:1,https://d:1"}});
  ASSERT_THAT(replaced, IsOk());
  EXPECT_THAT(replaced->state.etcd.endpoints, ElementsAre("https://c:1", "https://d:1"));
  EXPECT_EQ(Load("{}")->state.store, StateStoreKind::kFile);
  EXPECT_EQ(Load("state: {store: redis}").ok(), false);
}

TEST(LoadRuntimeConfig, ServerLogAndEngine) {
  const auto config = Load(R"(
server:
  grpc_address: 0.0.0.0:9001
  metrics_address: ""
  insecure: true
  drain_grace_ms: 1500
  tls: {certificate_file: c.pem, key_file: k.pem, reload_interval_ms: 5000}
log: {format: json, level: warning, flag_evaluations: changes}
engine: {slots: 4, slot_context: 8192, threads: 2, step_target_ms: 20, step_stretch: 1.5, max_queue: 9}
admission:
  {max_queue: 3, queue_timeout_ms: 10, starvation_after_ms: 20, adaptive: {enabled: false, floor: 2, tolerance: 2.5}}
model_roots: [/models, /more]
probe_cache_dir: /cache
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->server.grpc_address, "0.0.0.0:9001");
  EXPECT_EQ(config->server.metrics_address, "");
  EXPECT_TRUE(config->server.insecure);
  EXPECT_EQ(config->server.drain_grace, milliseconds(1500));
  EXPECT_EQ(config->server.tls.reload_interval, milliseconds(5000));
  EXPECT_EQ(config->server.max_message_bytes, ServerOptions().max_message_bytes);
  EXPECT_EQ(config->log.format, LogFormat::kJson);
  EXPECT_EQ(config->log.level, LogLevel::kWarning);
  EXPECT_EQ(config->log.flag_evaluations, FlagEvaluations::kChanges);
  EXPECT_EQ(config->models.default_geometry.slots, 4);
  EXPECT_EQ(config->models.default_geometry.slot_context, 8192);
  EXPECT_EQ(config->scheduler.step_target, milliseconds(20));
  EXPECT_EQ(config->scheduler.step_stretch, 1.5);
  EXPECT_EQ(config->scheduler.max_queue, 9);
  EXPECT_EQ(config->admission.max_queue, 3);
  EXPECT_EQ(config->admission.queue_timeout, milliseconds(10));
  EXPECT_EQ(config->admission.starvation_after, milliseconds(20));
  EXPECT_FALSE(config->concurrency_limit.enabled);
  EXPECT_EQ(config->concurrency_limit.floor, 2);
  EXPECT_EQ(config->concurrency_limit.tolerance, 2.5);
  EXPECT_THAT(config->models.model_roots, ElementsAre("/models", "/more"));
  EXPECT_EQ(config->probe_cache_dir, "/cache");
}

TEST(LoadRuntimeConfig, TheConcurrencyLimitKeepsBelowItsCeiling) {
  const auto small = Load("streaming: {maxConcurrentStreams: 3}");
  ASSERT_THAT(small, IsOk()) << "the defaults follow";
  EXPECT_EQ(small->concurrency_limit.ceiling, 3);
  EXPECT_EQ(small->concurrency_limit.floor, 3);
  EXPECT_EQ(small->concurrency_limit.initial, 3);
  EXPECT_EQ(Load("{}", {{"MAX_CONCURRENT", "70"}})->concurrency_limit.ceiling, 70);
  EXPECT_EQ(Load("{}", {{"SLUICE_ADMISSION_ADAPTIVE_QUEUE_WAIT_TARGET_MS", "7"}})->concurrency_limit.queue_wait_target,
            milliseconds(7));
  EXPECT_EQ(Load("admission: {adaptive: {floor: 4}}", {{"MAX_CONCURRENT", "2"}})->concurrency_limit.floor, 2);
  EXPECT_THAT(FaultsOf("admission: {adaptive: {smoothing: 0}}"),
              ElementsAre(testing::StartsWith("f.yaml:1: admission.adaptive.smoothing: \"0\" is out of range")));
}

TEST(LoadRuntimeConfig, AdmissionByClass) {
  const auto config = Load(R"(
admission:
  order: fcfs
  feasibility: dry_run
  feasibility_tolerance: 2
  classes:
    batch: {max_queue: 5, max_queued_tokens: 1000, max_queued_bytes: 0, queue_timeout_ms: 120000}
  adaptive: {floor: 7}
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->admission.order, qos::QueueOrder::kFcfs);
  EXPECT_EQ(config->admission.feasibility, qos::Feasibility::kDryRun);
  EXPECT_EQ(config->admission.feasibility_tolerance, 2);
  EXPECT_EQ(config->admission.min_concurrent, 7);
  const auto& classes = config->admission.classes;
  EXPECT_EQ(classes[static_cast<size_t>(qos::QosClass::kBatch)],
            (qos::ClassLimits{5, 1000, 0, std::chrono::seconds(120)}));
  EXPECT_EQ(classes[static_cast<size_t>(qos::QosClass::kStandard)], qos::ClassLimits());
  EXPECT_EQ(Load("{}", {{"SLUICE_ADMISSION_CLASSES_SYSTEM_MAX_QUEUE", "0"}})->admission.classes[0].max_queue, 0);
  EXPECT_EQ(Load("streaming: {maxConcurrentStreams: 2}")->admission.min_concurrent, 2);
  EXPECT_THAT(FaultsOf("admission: {order: lifo, classes: {bulk: {}}}"),
              testing::UnorderedElementsAre(testing::HasSubstr("admission.order: \"lifo\""),
                                            testing::HasSubstr("admission.classes.bulk: unknown key")));
}

TEST(LoadRuntimeConfig, BreakerRatesArePercentAsInResilience4j) {
  const auto config = Load(R"(
circuit_breaker:
  failure_rate_threshold: 12.5
  slow_call_rate_threshold: 80
  slow_call_duration_threshold_ms: 2000
  sliding_window_size: 20
  wait_duration_in_open_state_ms: 100
  permitted_number_of_calls_in_half_open_state: 3
  max_wait_duration_in_half_open_state_ms: 700
  initial_state: metrics_only
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_DOUBLE_EQ(config->breaker.failure_rate_threshold, 0.125);
  EXPECT_DOUBLE_EQ(config->breaker.slow_call_rate_threshold, 0.8);
  EXPECT_EQ(config->breaker.slow_call_duration, milliseconds(2000));
  EXPECT_EQ(config->breaker.minimum_number_of_calls, 20);  // never more than the window
  EXPECT_EQ(config->breaker.wait_in_open, milliseconds(100));
  EXPECT_EQ(config->breaker.permitted_calls_in_half_open, 3);
  EXPECT_EQ(config->breaker.max_wait_in_half_open, milliseconds(700));
  EXPECT_EQ(config->breaker.initial_state, qos::BreakerState::kMetricsOnly);
  EXPECT_THAT(FaultsOf("circuit_breaker: {failure_rate_threshold: 0}"),
              ElementsAre("f.yaml:1: circuit_breaker.failure_rate_threshold: \"0\" is out of range; allowed: a number "
                          "from 0.01 to 100"));
}

TEST(LoadRuntimeConfig, TheRestOfTheBreaker) {
  const auto config = Load(R"(
circuit_breaker:
  slow_stall_duration_threshold_ms: 300
  sliding_window_type: time_based
  sliding_window_size: 20
  minimum_number_of_calls: 50
  transition_to_state_after_wait_duration: closed
  automatic_transition_from_open_to_half_open_enabled: true
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->breaker.slow_stall_duration, milliseconds(300));
  EXPECT_EQ(config->breaker.sliding_window_type, qos::WindowType::kTimeBased);
  EXPECT_EQ(config->breaker.minimum_number_of_calls, 50) << "more calls than seconds";
  EXPECT_EQ(config->breaker.state_after_half_open_wait, qos::BreakerState::kClosed);
  EXPECT_TRUE(config->breaker.automatic_transition_to_half_open);
  EXPECT_THAT(FaultsOf("circuit_breaker: {sliding_window_type: time_based, sliding_window_size: 3601}"),
              ElementsAre("f.yaml:1: circuit_breaker.sliding_window_size: \"3601\" is out of range; allowed: a whole "
                          "number from 1 to 3600"));
  EXPECT_THAT(FaultsOf("circuit_breaker: {transition_to_state_after_wait_duration: half_open}"),
              ElementsAre(testing::HasSubstr("allowed: open, closed")));
}

TEST(LoadRuntimeConfig, RetryBudget) {
  const auto config =
      Load("retry_budget: {enabled: false, budget_percent: 12.5, min_retries_per_second: 0, window_s: 60}");
  ASSERT_THAT(config, IsOk());
  EXPECT_FALSE(config->retry_budget.enabled);
  EXPECT_DOUBLE_EQ(config->retry_budget.budget_ratio, 0.125);
  EXPECT_EQ(config->retry_budget.min_retries_per_second, 0);
  EXPECT_EQ(config->retry_budget.window_seconds, 60);
}

TEST(LoadRuntimeConfig, OverloadTriggersRiseOrJumpOrNever) {
  const auto config = Load(R"(
overload:
  enabled: false
  memory_limit_bytes: 1000000
  memory: {shed_batch: 50-60.5, shed_standard: never, refuse_all: 100}
  file_descriptors: {shrink_caches: 7-7}
)");
  ASSERT_THAT(config, IsOk());
  EXPECT_FALSE(config->overload.enabled);
  EXPECT_EQ(config->overload.memory_limit_bytes, 1'000'000u);
  const qos::OverloadOptions& triggers = config->overload.triggers;
  EXPECT_DOUBLE_EQ(triggers.shed_batch[0].scaling, 0.5);
  EXPECT_DOUBLE_EQ(triggers.shed_batch[0].saturation, 0.605);
  EXPECT_GT(triggers.shed_standard[0].scaling, 1);
  EXPECT_DOUBLE_EQ(triggers.refuse_all[0].scaling, 1);
  EXPECT_DOUBLE_EQ(triggers.refuse_all[0].saturation, 1);
  EXPECT_DOUBLE_EQ(triggers.shrink_caches[2].saturation, 0.07);
  EXPECT_THAT(qos::CheckOverload(triggers), IsOk());
  for (const char* bad : {"90-80", "0", "101", "-5", "5-", "1-2-3", "85 - 95", "often", "''"}) {
    EXPECT_THAT(FaultsOf(fmt::format("overload: {{cpu: {{shed_batch: {}}}}}", bad)),
                ElementsAre(testing::AllOf(
                    testing::StartsWith("f.yaml:1: overload.cpu.shed_batch: "),
                    testing::HasSubstr("allowed: percent of the limit, FROM-TO or FROM, 1 to 100; or never"))))
        << bad;
  }
  EXPECT_THAT(FaultsOf("overload: {disk: {shed_batch: 80}}"), ElementsAre(testing::HasSubstr("overload.disk")));
}

TEST(LoadRuntimeConfig, ModelsInheritTheEnginesGeometry) {
  const auto config = Load(R"(
models:
  - {name: small, path: s.gguf, pin: true, idle_timeout_ms: 900}
  - {name: long, path: l.gguf, slots: 2, slot_context: 8192, threads: 1, preload: false}
engine: {slots: 50, threads: 3}
)");
  ASSERT_THAT(config, IsOk());
  ASSERT_EQ(config->models.models.size(), 2u);
  const engine::ModelSpec& small = config->models.models[0];
  EXPECT_EQ(small.name, "small");
  EXPECT_EQ(small.geometry.slots, 50);
  EXPECT_EQ(small.threads, 3);
  EXPECT_TRUE(small.preload);
  EXPECT_TRUE(small.pinned);
  EXPECT_EQ(small.idle_timeout, milliseconds(900));
  const engine::ModelSpec& large = config->models.models[1];
  EXPECT_EQ(large.path, "l.gguf");
  EXPECT_EQ(large.geometry.slots, 2);
  EXPECT_EQ(large.geometry.slot_context, 8192);
  EXPECT_EQ(large.threads, 1);
  EXPECT_FALSE(large.preload);
  EXPECT_FALSE(large.pinned);
}

TEST(LoadRuntimeConfig, ModelFaults) {
  EXPECT_THAT(FaultsOf("models:\n- {name: a, path: x}\n- {path: y}\n- name: a\n  path: z\n"),
              ElementsAre("f.yaml:3: models[1].name: is missing; allowed: a name that clients ask for",
                          "f.yaml:4: models[2].name: \"a\" is the name of an earlier model; allowed: one model with a "
                          "name"));
}

TEST(LoadRuntimeConfig, SeedsVariables) {
  const auto config = Load("models: [{name: main, path: old.gguf}, {name: other, path: o.gguf}]",
                           {{"MODEL_PATH", "new.gguf"}, {"PRELOAD_MODEL", "no"}, {"MAX_CONCURRENT", "50"}});
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->models.models[0].path, "new.gguf");
  EXPECT_FALSE(config->models.models[0].preload);
  EXPECT_EQ(config->models.models[1].path, "o.gguf");
  EXPECT_TRUE(config->models.models[1].preload);
  EXPECT_EQ(config->admission.max_concurrent, 50);

  const auto bare = Load("engine: {slots: 7}", {{"MODEL_PATH", "m.gguf"}});
  ASSERT_THAT(bare, IsOk());
  ASSERT_EQ(bare->models.models.size(), 1u);
  EXPECT_EQ(bare->models.models[0].name, "default");
  EXPECT_EQ(bare->models.models[0].geometry.slots, 7);

  EXPECT_THAT(Load("{}", {{"MODEL_PATH", ""}})->models.models, testing::IsEmpty());  // empty = unset
  EXPECT_THAT(
      FaultsOf("{}", {{"PRELOAD_MODEL", "maybe"}, {"MAX_CONCURRENT", "0"}}),
      ElementsAre("environment: MAX_CONCURRENT: \"0\" is out of range; allowed: a whole number from 1 to 100000",
                  "environment: PRELOAD_MODEL: \"maybe\" is not a boolean; allowed: true, false, 1, 0, yes, no, "
                  "on or off"));
}

TEST(LoadRuntimeConfig, ConcurrencyVariablesMustAgree) {
  const std::string file = "streaming: {maxConcurrentStreams: 10}";
  EXPECT_EQ(Load(file, {{"MAX_CONCURRENT", "20"}})->admission.max_concurrent, 20);
  EXPECT_EQ(Load(file, {{"SLUICE_STREAMING_MAX_CONCURRENT_STREAMS", "30"}})->admission.max_concurrent, 30);
  EXPECT_THAT(
      FaultsOf(file, {{"MAX_CONCURRENT", "20"}, {"SLUICE_STREAMING_MAX_CONCURRENT_STREAMS", "30"}}),
      ElementsAre("environment: MAX_CONCURRENT: 20, but SLUICE_STREAMING_MAX_CONCURRENT_STREAMS is 30; allowed: "
                  "one of them, or the same number"));
}

TEST(LoadRuntimeConfig, CommandLineBeatsVariablesBeatsFile) {
  const std::string file = "models: [{name: main, path: file.gguf}]";
  EXPECT_EQ(Load(file)->models.models[0].path, "file.gguf");
  EXPECT_EQ(Load(file, {{"MODEL_PATH", "env.gguf"}})->models.models[0].path, "env.gguf");
  EXPECT_EQ(Load(file, {{"MODEL_PATH", "env.gguf"}}, {{"main", "cli.gguf"}})->models.models[0].path, "cli.gguf");
  EXPECT_EQ(Load(file, {{"MODEL_PATH", "env.gguf"}}, {{"", "cli.gguf"}})->models.models[0].path, "cli.gguf");

  const auto added = Load(file, {}, {{"extra", "x.gguf"}});
  ASSERT_EQ(added->models.models.size(), 2u);
  EXPECT_EQ(added->models.models[0].name, "main");
  EXPECT_EQ(added->models.models[1].name, "extra");
}

TEST(LoadRuntimeConfig, CommandLineModelsReplaceTheUnfilledDefault) {
  const std::string file = "models: [{name: default, path: ''}]";
  const auto replaced = Load(file, {}, {{"smol", "s.gguf"}});
  ASSERT_EQ(replaced->models.models.size(), 1u);
  EXPECT_EQ(replaced->models.models[0].name, "smol");
  const auto filled = Load(file, {{"MODEL_PATH", "m.gguf"}}, {{"smol", "s.gguf"}});
  ASSERT_EQ(filled->models.models.size(), 2u);
  EXPECT_EQ(filled->models.models[0].path, "m.gguf");
  const auto only_command_line = Load("{}", {}, {{"", "c.gguf"}});
  ASSERT_EQ(only_command_line->models.models.size(), 1u);
  EXPECT_EQ(only_command_line->models.models[0].name, "default");
}

TEST(LoadRuntimeConfig, ReportsEverythingAtOnce) {
  EXPECT_THAT(
      FaultsOf(R"(server:
  grpc_adress: 127.0.0.1:1
  insecure: "true"
engine:
  slots: 0
  slots: 5
streaming:
  requestTimeout: 30s
modles: []
)",
               {{"SLUICE_ENGINE_SLOT", "3"}}),
      ElementsAre(testing::StartsWith("f.yaml:2: server.grpc_adress: unknown key (did you mean grpc_address?); "
                                      "allowed: api_keys_file, "),
                  "f.yaml:3: server.insecure: \"true\" is text in quotes; allowed: true or false",
                  "f.yaml:5: engine.slots: \"0\" is out of range; allowed: a whole number from 1 to 4096",
                  "f.yaml:6: engine.slots: given twice (first in line 5); allowed: once",
                  "f.yaml:8: streaming.requestTimeout: \"30s\" is not a whole number; allowed: a whole number "
                  "of milliseconds from 0 to 86400000",
                  testing::StartsWith("f.yaml:9: modles: unknown key (did you mean models?); allowed: admission"),
                  "environment: SLUICE_ENGINE_SLOT: unknown variable (did you mean SLUICE_ENGINE_SLOTS?); "
                  "allowed: SLUICE_ and the path of a key, as listed in docs/configuration.md"));
}

TEST(LoadRuntimeConfig, EmptyMissingAndAbsentFiles) {
  EXPECT_THAT(FaultsOf("# nothing\n"),
              ElementsAre("f.yaml: is empty; allowed: keys and values, or {} for the defaults"));
  EXPECT_THAT(LoadRuntimeConfig("no/such.yaml", nullptr, {}, {}), StatusIs(absl::StatusCode::kNotFound));
  const auto defaults = LoadRuntimeConfig("", nullptr, {}, {});
  ASSERT_THAT(defaults, IsOk());
  EXPECT_EQ(defaults->server.grpc_address, ServerOptions().grpc_address);
  EXPECT_EQ(defaults->admission.max_concurrent, qos::AdmissionOptions().max_concurrent);
}

}  // namespace
}  // namespace sluice::config
