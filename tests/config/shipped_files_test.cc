// The files in config/ load without a fault, mean what the code's defaults mean, and survive random damage.
#include <cstdio>
#include <iterator>
#include <random>

#include "base/strings.h"
#include "config/config_loader.h"
#include "config/qos_file.h"
#include "config/yaml_tree.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using test::IsOk;
using test::StatusIs;

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

TEST(ShippedFiles, RuntimeLoadsAndNeedsOnlyAModel) {
  const auto without = LoadRuntimeConfig("config/runtime.yaml", nullptr, {}, {});
  ASSERT_THAT(without, IsOk());
  EXPECT_THAT(ValidateRuntime(*without),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("MODEL_PATH or --model")));
  const TestVariables variables = {{"MODEL_PATH", "m.gguf"}};
  const auto config = LoadRuntimeConfig("config/runtime.yaml", Env(variables), NamesOf(variables), {});
  ASSERT_THAT(config, IsOk());
  EXPECT_THAT(ValidateRuntime(*config), IsOk());
  ASSERT_EQ(config->models.models.size(), 1u);
  EXPECT_EQ(config->models.models[0].name, "default");
  EXPECT_EQ(config->models.models[0].geometry.slots, 100);
  EXPECT_EQ(config->models.models[0].geometry.slot_context, 1024);
}

TEST(ShippedFiles, RuntimeSaysTheDefaultsOfTheCode) {
  const auto file = LoadRuntimeConfig("config/runtime.yaml", nullptr, {}, {});
  const auto code = LoadRuntimeConfig("", nullptr, {}, {});
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(code, IsOk());
  EXPECT_EQ(file->server.grpc_address, code->server.grpc_address);
  EXPECT_EQ(file->server.metrics_address, code->server.metrics_address);
  EXPECT_EQ(file->server.max_message_bytes, code->server.max_message_bytes);
  EXPECT_EQ(file->server.max_metadata_bytes, code->server.max_metadata_bytes);
  EXPECT_EQ(file->server.max_streams_per_connection, code->server.max_streams_per_connection);
  EXPECT_EQ(file->server.max_flag_event_streams, code->server.max_flag_event_streams);
  EXPECT_EQ(file->server.max_connection_age, code->server.max_connection_age);
  EXPECT_EQ(file->server.max_connection_age_grace, code->server.max_connection_age_grace);
  EXPECT_EQ(file->server.min_client_ping_interval, code->server.min_client_ping_interval);
  EXPECT_EQ(file->server.drain_grace, code->server.drain_grace);
  EXPECT_EQ(file->server.drain_delay, code->server.drain_delay);
  EXPECT_EQ(file->server.tls.reload_interval, code->server.tls.reload_interval);
  EXPECT_EQ(file->flags.targeting_key, code->flags.targeting_key);
  EXPECT_EQ(file->log.flag_evaluations, code->log.flag_evaluations);
  EXPECT_EQ(file->max_tokens_limit, code->max_tokens_limit);
  EXPECT_EQ(file->default_max_tokens, code->default_max_tokens);
  EXPECT_EQ(file->models.max_models, code->models.max_models);
  EXPECT_EQ(file->models.memory_budget_bytes, code->models.memory_budget_bytes);
  EXPECT_EQ(file->scheduler.max_queue, code->scheduler.max_queue);
  EXPECT_EQ(file->scheduler.max_batch_tokens, code->scheduler.max_batch_tokens);
  EXPECT_EQ(file->scheduler.max_running, code->scheduler.max_running);
  EXPECT_EQ(file->scheduler.step_target, code->scheduler.step_target);
  EXPECT_EQ(file->scheduler.step_stretch, code->scheduler.step_stretch);
  EXPECT_EQ(file->scheduler.min_prefill_tokens, code->scheduler.min_prefill_tokens);
  EXPECT_EQ(file->scheduler.idle_prefill_tokens, code->scheduler.idle_prefill_tokens);
  EXPECT_EQ(file->scheduler.stream_buffer_tokens, code->scheduler.stream_buffer_tokens);
  EXPECT_EQ(file->scheduler.slow_reader_timeout, code->scheduler.slow_reader_timeout);
  EXPECT_EQ(file->admission.max_concurrent, code->admission.max_concurrent);
  EXPECT_EQ(file->admission.max_queue, code->admission.max_queue);
  EXPECT_EQ(file->admission.queue_timeout, code->admission.queue_timeout);
  EXPECT_EQ(file->admission.starvation_after, code->admission.starvation_after);
  EXPECT_EQ(file->admission.default_deadline, code->admission.default_deadline);
  EXPECT_EQ(file->admission.order, code->admission.order);
  EXPECT_EQ(file->admission.feasibility, code->admission.feasibility);
  EXPECT_EQ(file->admission.feasibility_tolerance, code->admission.feasibility_tolerance);
  EXPECT_EQ(file->admission.classes, code->admission.classes);
  EXPECT_EQ(file->concurrency_limit, code->concurrency_limit);
  EXPECT_EQ(file->breaker.failure_rate_threshold, code->breaker.failure_rate_threshold);
  EXPECT_EQ(file->breaker.slow_call_rate_threshold, code->breaker.slow_call_rate_threshold);
  EXPECT_EQ(file->breaker.slow_call_duration, code->breaker.slow_call_duration);
  EXPECT_EQ(file->breaker.sliding_window_size, code->breaker.sliding_window_size);
  EXPECT_EQ(file->breaker.minimum_number_of_calls, code->breaker.minimum_number_of_calls);
  EXPECT_EQ(file->breaker.wait_in_open, code->breaker.wait_in_open);
  EXPECT_EQ(file->breaker.permitted_calls_in_half_open, code->breaker.permitted_calls_in_half_open);
  EXPECT_EQ(file->breaker.max_wait_in_half_open, code->breaker.max_wait_in_half_open);
  EXPECT_EQ(file->breaker.slow_stall_duration, code->breaker.slow_stall_duration);
  EXPECT_EQ(file->breaker.sliding_window_type, code->breaker.sliding_window_type);
  EXPECT_EQ(file->breaker.state_after_half_open_wait, code->breaker.state_after_half_open_wait);
  EXPECT_EQ(file->breaker.automatic_transition_to_half_open, code->breaker.automatic_transition_to_half_open);
}

TEST(ShippedFiles, RuntimeSaysTheDefaultsOfOverloadAndRetries) {
  const auto file = LoadRuntimeConfig("config/runtime.yaml", nullptr, {}, {});
  const auto code = LoadRuntimeConfig("", nullptr, {}, {});
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(code, IsOk());
  EXPECT_EQ(file->retry_budget.enabled, code->retry_budget.enabled);
  EXPECT_EQ(file->retry_budget.budget_ratio, code->retry_budget.budget_ratio);
  EXPECT_EQ(file->retry_budget.min_retries_per_second, code->retry_budget.min_retries_per_second);
  EXPECT_EQ(file->retry_budget.window_seconds, code->retry_budget.window_seconds);
  EXPECT_EQ(file->overload.enabled, code->overload.enabled);
  EXPECT_EQ(file->overload.memory_limit_bytes, code->overload.memory_limit_bytes);
  const auto ends = [](const qos::OverloadOptions& o) {
    std::vector<double> out;
    for (const auto* triggers : {&o.shed_batch, &o.shed_standard, &o.shrink_caches, &o.refuse_all}) {
      for (const qos::Trigger& t : *triggers) out.insert(out.end(), {t.scaling, t.saturation});
    }
    return out;
  };
  EXPECT_EQ(ends(file->overload.triggers), ends(code->overload.triggers));
}

TEST(ShippedFiles, FlagsLoadAndFormASet) {
  const auto spec = LoadFlagSpec("config/feature-flags.yaml", nullptr);
  ASSERT_THAT(spec, IsOk());
  ASSERT_EQ(spec->flags.size(), 3u);
  for (const flags::Flag& flag : spec->flags) {
    EXPECT_TRUE(flag.enabled) << flag.key;
    EXPECT_EQ(flag.rollout_bps, 10000u) << flag.key;
    EXPECT_EQ(flag.dry_run, flag.key == "qos_policy") << flag.key;
  }
  EXPECT_THAT(flags::FlagSet::Create(*spec, 1), IsOk());
}

TEST(ShippedFiles, ApiKeysLoad) {
  const auto keys = LoadApiKeys("config/api_keys.example.yaml");
  ASSERT_THAT(keys, IsOk());
  EXPECT_EQ(keys->size(), 2u);
}

// Every key of `node`, with its path.
void CollectPaths(const YamlNode& node, const std::string& prefix, std::vector<std::string>* out) {
  for (const YamlMember& member : node.members) {
    const std::string path = prefix + member.key;
    if (member.value.kind != YamlNode::Kind::kMap) out->push_back(path);
    CollectPaths(member.value, path + ".", out);
  }
}

TEST(ShippedFiles, EveryKeyIsInTheDocs) {
  const auto tree = LoadYamlFile("config/runtime.yaml");
  ASSERT_THAT(tree, IsOk());
  std::vector<std::string> paths;
  CollectPaths(*tree, "", &paths);
  ASSERT_GT(paths.size(), 50u);
  const std::string docs = ReadAll("docs/configuration.md");
  for (const std::string& path : paths)
    EXPECT_THAT(docs, testing::HasSubstr("`" + path + (path == "models" ? "[]." : "`")));
}

// Overwrites, inserts, removes or repeats a few bytes.
std::string Damage(std::string text, std::mt19937& random) {
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  constexpr std::string_view kTroublesome = ":-[]{},&*!|>'\"%@`#?~\n\t \\0.eE";
  const size_t edits = 1 + below(8);
  for (size_t i = 0; i < edits && !text.empty(); ++i) {
    const size_t at = below(text.size());
    const char c = below(2) == 0 ? static_cast<char>(below(256)) : kTroublesome[below(kTroublesome.size())];
    switch (below(4)) {
      case 0:
        text[at] = c;
        break;
      case 1:
        text.insert(at, 1, c);
        break;
      case 2:
        text.erase(at, 1 + below(20));
        break;
      default:
        text.insert(below(text.size()), text.substr(at, 1 + below(60)));
    }
  }
  return text;
}

TEST(ShippedFiles, RandomDamageIsAFaultOrHarmlessNeverACrash) {
  constexpr uint32_t kSeed = 20260301;
  constexpr int kRounds = 1000;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  const std::string runtime = ReadAll("config/runtime.yaml"), flag_file = ReadAll("config/feature-flags.yaml"),
                    keys = ReadAll("config/api_keys.example.yaml"),
                    policies = ReadAll("tests/config/qos_samples/good/everything.yaml");
  const TestFile file("");
  int refused = 0;
  const auto judge = [&](const absl::Status& status, int round) {
    if (status.ok()) return;
    ++refused;
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "round " << round;
    ASSERT_TRUE(IsValidUtf8(ToStd(status.message()))) << "round " << round;
    for (const std::string& line : file.Lines(status)) {
      ASSERT_THAT(line, testing::StartsWith("f.yaml:")) << "round " << round;
      ASSERT_THAT(line, testing::AnyOf(testing::HasSubstr("; allowed: "), testing::HasSubstr(" more faults")))
          << "round " << round;
    }
  };
  for (int round = 0; round < kRounds; ++round) {
    file.Write(Damage(runtime, random));
    judge(LoadRuntimeConfig(file.path(), nullptr, {}, {}).status(), round);
    file.Write(Damage(flag_file, random));
    const auto spec = LoadFlagSpec(file.path(), nullptr);
    judge(spec.status(), round);
    if (spec.ok()) {
      ASSERT_THAT(flags::FlagSet::Create(*spec, 1), IsOk()) << "round " << round;
    }
    file.Write(Damage(keys, random));
    judge(LoadApiKeys(file.path()).status(), round);
    file.Write(Damage(policies, random));
    judge(LoadQosFile(file.path(), 1).status(), round);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(refused, kRounds);  // most damage is seen
}

}  // namespace
}  // namespace sluice::config
