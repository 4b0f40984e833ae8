#include "config/qos_file.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/strings.h"
#include "config/yaml_tree.h"
#include "qos/policy_metric.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using qos::Policy;
using test::IsOk;
using test::StatusIs;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr const char* kSamples = "tests/config/qos_samples";

std::map<std::string, absl::Status> LoadAll(const std::string& folder) {
  std::map<std::string, absl::Status> out;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(kSamples) / folder)) {
    out[entry.path().stem().string()] = LoadQosFile(entry.path().string(), 1).status();
  }
  return out;
}

std::vector<std::string> FaultsOf(const std::string& text) {
  const TestFile file(text);
  return file.Lines(LoadQosFile(file.path(), 1).status());
}

TEST(QosFile, GoodSamplesLoad) {
  const auto all = LoadAll("good");
  EXPECT_GE(all.size(), 4u);
  for (const auto& [name, status] : all) EXPECT_THAT(status, IsOk()) << name;
}

TEST(QosFile, BadSamplesAreRefusedAsBySchema) {
  const auto all = LoadAll("bad");
  EXPECT_GE(all.size(), 70u);
  for (const auto& [name, status] : all) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("; allowed: ")) << name;
  }
}

// The whole of each refusal, without its file.
TEST(QosFile, BadSamplesBeyondASchemaNameTheirLine) {
  const std::map<std::string, std::string> expected = {
      {"alert_twice", "3: alerts[1]: alert a stands above already; allowed: once"},
      {"alert_undeclared",
       "5: policies[0].ladder[0].alert: no alert is called \"nobody\"; allowed: a name under alerts, which has none"},
      {"alert_unknown", "5: policies[0].ladder[0].alert: no alert is called \"nobody\"; allowed: on-call, boss"},
      {"circuit_of_target",
       "6: policies[0].ladder[1]: opens the circuit of baseline, which this ladder switches to; allowed: the circuit "
       "of another pipeline"},
      {"class_not_acted_on",
       "6: policies[0].ladder[0]: shed of batch, but the policy acts on interactive only; allowed: classes of acts_on "
       "(or of scope, without acts_on)"},
      {"id_twice", "4: policies[1].id: is the id of an earlier policy; allowed: ids that differ"},
      {"key_twice", "5: policies[0].priority: given twice (first in line 4); allowed: once"},
      {"limit_loosens", "6: policies[0].ladder[1]: 128 tokens after 64; allowed: limits that tighten with each step"},
      {"minimum_above_maximum",
       "5: policies[0].objectives[1].at_least: requests_per_s can never be met beside the other threshold; allowed: a "
       "minimum below the maximum"},
      {"mode_false", "4: policies[0].mode: \"false\" is not known; allowed: off, dry_run, enforce"},
      {"percent_finer",
       "4: policies[0].enforced_percent: \"0.005\" has more than two decimals; allowed: 0 to 100 (percent) in steps of "
       "0.01"},
      {"queue_loosens",
       "6: policies[0].ladder[1]: 4 of batch at once after 2; allowed: limits that tighten with each step"},
      {"queue_of_some",
       "6: policies[0].ladder[0]: queue acts on the whole process, so not for a percentage of keys; allowed: "
       "enforced_percent: 100"},
      {"queue_of_tenant",
       "6: policies[0].ladder[0]: queue counts whole classes, so not certain tenants or models; allowed: acts_on: {} "
       "or classes only"},
      {"queue_shed", "6: policies[0].ladder[1]: batch is shed by a lower step; allowed: classes that are not shed yet"},
      {"quota_twice", "3: quotas[1]: tenant a, model * stands above already; allowed: once"},
      {"same_action", "4: policies[0].ladder[2]: the same unload_idle_models again; allowed: each action once"},
      {"shed_twice", "6: policies[0].ladder[1]: batch is shed by a lower step; allowed: classes that are not shed yet"},
      {"two_maxima",
       "5: policies[0].objectives[1].at_most: ttft_p95_ms has this kind of threshold already; allowed: one for each "
       "metric and window of a policy"},
      {"two_pipelines", "4: policies[0].ladder[1]: a second switch_pipeline; allowed: one in a ladder"},
      {"two_upstreams", "4: policies[0].ladder[1]: a second prefer_upstream; allowed: one in a ladder"},
      {"unload_of_some",
       "5: policies[0].ladder[0]: unload_idle_models acts on the whole process, so not for a percentage of keys; "
       "allowed: enforced_percent: 100"},
  };
  const auto all = LoadAll("bad_beyond_schema");
  EXPECT_EQ(all.size(), expected.size());
  for (const auto& [name, status] : all) {
    ASSERT_TRUE(expected.contains(name)) << name << ": " << status.ToString();
    EXPECT_EQ(std::string(status.message()),
              std::string(kSamples) + "/bad_beyond_schema/" + name + ".yaml:" + expected.at(name));
  }
}

TEST(QosFile, EveryKeyArrives) {
  const auto file = LoadQosFile(std::string(kSamples) + "/good/everything.yaml", 5);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->evaluation_interval, std::chrono::seconds(1));
  ASSERT_EQ(file->policies->policies().size(), 2u);
  EXPECT_EQ(file->policies->epoch(), 5u);
  EXPECT_EQ(file->policies->policies()[0].id, "watch") << "by falling priority";
  EXPECT_EQ(file->policies->policies()[0].mode, qos::PolicyMode::kDryRun);
  const Policy& policy = file->policies->policies()[1];
  EXPECT_EQ(policy.id, "all-of-it");
  EXPECT_EQ(policy.description, "Every key");
  EXPECT_EQ(policy.mode, qos::PolicyMode::kEnforce);
  EXPECT_EQ(policy.enforced_percent, 100);
  EXPECT_EQ(policy.priority, -5);
  EXPECT_THAT(policy.scope.tenants, UnorderedElementsAre("gold", "7"));
  EXPECT_THAT(policy.scope.models, UnorderedElementsAre("default"));
  EXPECT_EQ(policy.scope.classes, 2);
  EXPECT_EQ(policy.acts_on, qos::Scope());
  EXPECT_EQ(policy.cooldown, Duration::zero());
  EXPECT_EQ(policy.violated_for, std::chrono::milliseconds(1));
  EXPECT_EQ(policy.recovered_for, std::chrono::milliseconds(2));
  EXPECT_EQ(policy.recovery_margin, 0);
  EXPECT_EQ(policy.max_actions, 1000);
  EXPECT_EQ(policy.action_window, std::chrono::seconds(1));
  EXPECT_EQ(policy.max_reversals, 0);
  ASSERT_EQ(policy.objectives.size(), 8u);
  EXPECT_EQ(policy.objectives[0], (qos::Objective{.metric = "ttft_p99.9_ms",
                                                  .signal = qos::Signal::kTtft,
                                                  .quantile = 0.999,
                                                  .threshold = 550.5,
                                                  .window = std::chrono::seconds(1),
                                                  .min_samples = 1,
                                                  .severity = qos::Severity::kCritical}));
  EXPECT_EQ(policy.objectives[3],
            (qos::Objective{
                .metric = "requests_per_s", .signal = qos::Signal::kRequestRate, .at_least = true, .threshold = 10}));
  EXPECT_THAT(policy.ladder, ElementsAre(qos::Action{.kind = qos::ActionKind::kAlert, .target = "on-call"},
                                         qos::Action{.kind = qos::ActionKind::kQueue, .limit = 8, .classes = 12},
                                         qos::Action{.kind = qos::ActionKind::kLimitMaxTokens, .limit = 128},
                                         qos::Action{.kind = qos::ActionKind::kQueue, .limit = 2, .classes = 8},
                                         qos::Action{.kind = qos::ActionKind::kLimitMaxTokens, .limit = 64},
                                         qos::Action{.kind = qos::ActionKind::kSwitchPipeline, .target = "baseline"},
                                         qos::Action{.kind = qos::ActionKind::kOpenCircuit,
                                                     .target = "ttft",
                                                     .duration = std::chrono::seconds(30)},
                                         qos::Action{.kind = qos::ActionKind::kUnloadIdleModels},
                                         qos::Action{.kind = qos::ActionKind::kPreferUpstream, .target = "other-site"},
                                         qos::Action{.kind = qos::ActionKind::kShed, .classes = 8},
                                         qos::Action{.kind = qos::ActionKind::kShed, .classes = 6},
                                         qos::Action{.kind = qos::ActionKind::kAlert, .target = "boss"}));
}

TEST(QosFile, QuotasAndAlertsArrive) {
  const auto file = LoadQosFile(std::string(kSamples) + "/good/everything.yaml", 5);
  ASSERT_THAT(file, IsOk());
  ASSERT_EQ(file->quotas.size(), 2u);
  EXPECT_EQ(file->quotas[0].tenant, "acme");
  EXPECT_EQ(file->quotas[0].model, "default");
  EXPECT_EQ(file->quotas[0].limits.requests_per_second, 0.5);
  EXPECT_EQ(file->quotas[0].limits.request_burst, 5);
  EXPECT_EQ(file->quotas[0].limits.concurrent_requests, 2);
  EXPECT_EQ(file->quotas[1].tenant, "*");
  EXPECT_EQ(file->quotas[1].model, "*");
  EXPECT_EQ(file->quotas[1].limits.prompt_tokens_per_minute, 1'000'000);
  EXPECT_EQ(file->quotas[1].limits.output_tokens_per_minute, 0);
  ASSERT_EQ(file->alerts.size(), 2u);
  EXPECT_EQ(file->alerts[0].name, "on-call");
  EXPECT_EQ(file->alerts[0].url, "https://example.com/hook?a=b");
  EXPECT_EQ(file->alerts[0].timeout, std::chrono::milliseconds(100));
  EXPECT_EQ(file->alerts[0].max_retries, 0);
  EXPECT_EQ(file->alerts[0].dedup_window, Duration::zero());
  EXPECT_EQ(file->alerts[1].secret_file, "secrets/hook");
}

TEST(QosFile, EveryFaultIsToldAtOnceWithHints) {
  EXPECT_THAT(
      FaultsOf("policies:\n"
               "  - id: p\n"
               "    cooldwn_ms: 5\n"
               "    objectives:\n"
               "      - {metric: tfft_p95_ms, at_most: 5}\n"
               "      - {metric: ttft_p95_ms, at_most: many}\n"
               "    ladder:\n"
               "      - limit_max_token: 5\n"
               "      - unload_idle_model\n"
               "      - shed: [gold]\n"
               "evaluation_interval_ms: 1\n"),
      ElementsAre(testing::AllOf(testing::StartsWith("f.yaml:3: policies[0].cooldwn_ms: unknown key (did you mean "
                                                     "cooldown_ms?); allowed: action_window_ms, "),
                                 HasSubstr(", violated_for_ms")),
                  "f.yaml:5: policies[0].objectives[0].metric: \"tfft_p95_ms\": unknown metric (did you mean "
                  "ttft_p95_ms?); allowed: " +
                      std::string(qos::PolicyMetricsAllowed()),
                  "f.yaml:6: policies[0].objectives[1].at_most: \"many\" is not a number; allowed: a number from "
                  "0 to 1000000000",
                  testing::StartsWith("f.yaml:8: policies[0].ladder[0].limit_max_token: unknown action (did you "
                                      "mean limit_max_tokens?); allowed: limit_max_tokens, switch_pipeline, "),
                  testing::StartsWith("f.yaml:9: policies[0].ladder[1]: unknown action \"unload_idle_model\" (did "
                                      "you mean unload_idle_models?); allowed: limit_max_tokens, "),
                  "f.yaml:10: policies[0].ladder[2].shed: \"gold\" is not a class; allowed: system, interactive, "
                  "standard, batch",
                  testing::StartsWith("f.yaml:11: evaluation_interval_ms: \"1\" is out of range")));
}

TEST(QosFile, AnEmptyFileIsAFaultAndAMissingOneIsSaid) {
  EXPECT_THAT(FaultsOf(""), ElementsAre("f.yaml: is empty; allowed: policies, or {} for none"));
  EXPECT_THAT(LoadQosFile("tests/config/none.yaml", 1), StatusIs(absl::StatusCode::kNotFound));
}

TEST(QosFile, AliasesAreNoBombs) {
  EXPECT_THAT(FaultsOf("quotas: [&a {tenant: x}, *a]\n"), ElementsAre(HasSubstr("syntax")));
}

// The file that ships: everything in dry_run, the seeds' targets, and the code's defaults where it states them.
TEST(QosFile, TheShippedFileIsDryRunWithTheSeedsTargets) {
  const auto file = LoadQosFile("config/qos-policies.yaml", 1);
  ASSERT_THAT(file, IsOk());
  std::map<std::string, std::pair<std::string, double>> targets;
  for (const Policy& policy : file->policies->policies()) {
    EXPECT_EQ(policy.mode, qos::PolicyMode::kDryRun) << policy.id;
    EXPECT_NE(policy.description, "") << policy.id;
    ASSERT_EQ(policy.objectives.size(), 1u) << policy.id;
    targets[policy.id] = {policy.objectives[0].metric, policy.objectives[0].threshold};
  }
  const std::map<std::string, std::pair<std::string, double>> expected = {
      {"ttft", {"ttft_p95_ms", 550}},
      {"ttft-stretch", {"ttft_p95_ms", 400}},
      {"error-rate", {"error_rate_percent", 1}},
      {"error-rate-stretch", {"error_rate_percent", 0.5}},
      {"concurrency", {"running_requests", 75}},
      {"concurrency-stretch", {"running_requests", 100}},
      {"cpu", {"cpu_percent", 80}},
      {"cpu-stretch", {"cpu_percent", 70}},
      {"premium-ttft", {"ttft_p95_ms", 100}},
      {"min-throughput", {"requests_per_s", 130}},
      {"min-throughput-stretch", {"requests_per_s", 150}},
  };
  EXPECT_EQ(targets, expected);
  EXPECT_EQ(file->evaluation_interval, QosFile().evaluation_interval);
  EXPECT_TRUE(file->quotas.empty());
  EXPECT_TRUE(file->alerts.empty());
}

void CollectKeys(const YamlNode& node, std::set<std::string>* out) {
  for (const YamlMember& member : node.members) {
    out->insert(member.key);
    CollectKeys(member.value, out);
  }
  for (const YamlNode& item : node.items) CollectKeys(item, out);
}

TEST(QosFile, EveryKeyIsInTheDocs) {
  std::set<std::string> keys;
  for (const std::string& path :
       {std::string("config/qos-policies.yaml"), std::string(kSamples) + "/good/everything.yaml"}) {
    const auto tree = LoadYamlFile(path);
    ASSERT_THAT(tree, IsOk());
    CollectKeys(*tree, &keys);
  }
  ASSERT_GT(keys.size(), 45u);
  std::ifstream in("docs/configuration.md", std::ios::binary);
  const std::string docs(std::istreambuf_iterator<char>(in), {});
  const std::string section = docs.substr(docs.find("## qos-policies.yaml"));
  for (const std::string& key : keys) EXPECT_THAT(section, testing::ContainsRegex("[`. {]" + key + "[[`:]")) << key;
}

}  // namespace
}  // namespace sluice::config
