// Arrivals, workloads and scenario files: everything that is fixed before the first request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/files.h"
#include "loadtest/arrivals.h"
#include "loadtest/comparison.h"
#include "loadtest/scenario.h"
#include "loadtest/session.h"
#include "loadtest/workload.h"

namespace sluice::loadtest {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

std::vector<double> GapsOf(const std::vector<Duration>& times) {
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(ToSeconds(times[i] - times[i - 1]));
  return gaps;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double Variation(const std::vector<double>& values) {  // coefficient of variation
  const double mean = Mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / static_cast<double>(values.size())) / mean;
}

TEST(Arrivals, ConstantIsEven) {
  const auto times = Arrivals({.mode = LoadSpec::Mode::kConstant}, 10, seconds(2), 0, 1);
  ASSERT_EQ(times.size(), 20U);
  EXPECT_EQ(times[1] - times[0], std::chrono::milliseconds(100));
}

TEST(Arrivals, PoissonAndGammaHaveExactlyTheRateAndTheirBurstiness) {
  for (const double shape : {0.25, 1.0, 4.0}) {
    const LoadSpec load{.mode = shape == 1 ? LoadSpec::Mode::kPoisson : LoadSpec::Mode::kGamma, .burstiness = shape};
    const auto times = Arrivals(load, 50, seconds(100), 0, 7);
    ASSERT_EQ(times.size(), 5000U);
    EXPECT_NEAR(ToSeconds(times.back()), 100, 1e-6);
    EXPECT_NEAR(Variation(GapsOf(times)), 1 / std::sqrt(shape), 0.12 / std::sqrt(shape)) << shape;
    EXPECT_EQ(times, Arrivals(load, 50, seconds(100), 0, 7));
    EXPECT_NE(times, Arrivals(load, 50, seconds(100), 0, 8));
  }
}

TEST(Arrivals, RampSendsWhatItsAreaSays) {
  const LoadSpec load{.mode = LoadSpec::Mode::kRamp, .rate_end = 30};
  const auto times = Arrivals(load, 10, seconds(10), 0, 1);
  EXPECT_EQ(times.size(), 200U);  // (10 + 30) / 2 × 10
  const auto half = std::count_if(times.begin(), times.end(), [](Duration d) { return d < seconds(5); });
  EXPECT_NEAR(static_cast<double>(half), 75, 1);  // (10 + 20) / 2 × 5
}

TEST(Arrivals, TraceNamesTheBadLine) {
  const std::string path = testing::TempDir() + "/trace.txt";
  std::ofstream(path) << "# seconds\n0\n0.5\n0.25\n";
  const auto times = ReadTrace(path);
  EXPECT_THAT(std::string(times.status().message()), HasSubstr("trace.txt:4: '0.25'"));
}

TEST(Workload, TheSameSeedGivesTheSameRequestsAndPrefixesAreShared) {
  const WorkloadSpec spec{.prompt_tokens = {.kind = LengthSpec::Kind::kUniform, .min = 40, .max = 60},
                          .shared_prefix_tokens = 30,
                          .shared_prefix_groups = 2};
  Workload a(spec, {}, 9, "x"), b(spec, {}, 9, "x"), c(spec, {}, 10, "x");
  std::set<std::string> prefixes, whole;
  bool differs = false;
  for (int i = 0; i < 50; ++i) {
    const Planned p = a.Next();
    EXPECT_EQ(p.request.prompt, b.Next().request.prompt);
    differs = differs || p.request.prompt != c.Next().request.prompt;
    whole.insert(p.request.prompt);
    size_t end = 0;
    for (int word = 0; word < 30; ++word) end = p.request.prompt.find(' ', end + 1);
    prefixes.insert(p.request.prompt.substr(0, end));
    const auto words = 1 + std::count(p.request.prompt.begin(), p.request.prompt.end(), ' ');
    EXPECT_GE(words, 40);
    EXPECT_LE(words, 60);
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(prefixes.size(), 2U);
  EXPECT_EQ(whole.size(), 50U);
}

TEST(Workload, SharesAndTenantsComeInTheirProportions) {
  const WorkloadSpec spec{
      .tenants = {{.name = "a", .priority_class = "batch", .weight = 3}, {.name = "b", .weight = 1}},
      .cancel_share = 0.2,
      .slow_share = 0.1};
  Workload workload(spec, {}, 3, "x");
  int a = 0, cancels = 0, slow = 0;
  for (int i = 0; i < 2000; ++i) {
    const Request r = workload.Next().request;
    a += r.tenant == "a" && r.priority_class == "batch" ? 1 : 0;
    cancels += r.cancel_after_messages > 0 ? 1 : 0;
    slow += r.read_delay.count() > 0 ? 1 : 0;
  }
  EXPECT_NEAR(a, 1500, 80);
  EXPECT_NEAR(cancels, 400, 60);
  EXPECT_NEAR(slow, 200, 50);
}

TEST(Workload, AChatRepeatsWhatWasSaid) {
  const WorkloadSpec spec{.form = WorkloadSpec::Form::kChat, .prompt_tokens = {.mean = 5}, .turns = {.mean = 3}};
  Workload workload(spec, {}, 3, "x");
  const Planned first = workload.Next();
  const Planned second = workload.NextTurn(first, "the answer");
  ASSERT_EQ(first.turns, 3);
  ASSERT_EQ(second.request.chat.size(), 3U);
  EXPECT_EQ(second.request.chat[0], first.request.chat[0]);
  EXPECT_EQ(second.request.chat[1], (std::pair<std::string, std::string>("assistant", "the answer")));
  EXPECT_EQ(second.request.conversation, first.request.conversation);
  EXPECT_NE(second.request.id, first.request.id);
}

constexpr const char* kGood = R"(
name: demo
engines:
  - {name: a, url: "grpc://127.0.0.1:1"}
  - {name: b, start: sluice}
load: {mode: poisson, rate: 5}
checks: [{metric: ttft_p95_ms, arm: b, versus: a, at_most: 0.9}]
quick: {load: {rate: 2, duration_s: 1}}
)";

TEST(Scenario, QuickAndOverridesAreLaidOver) {
  const auto full = ParseScenario("f", kGood, false, {}), quick = ParseScenario("f", kGood, true, {});
  const auto set = ParseScenario("f", kGood, true,
                                 {"load.rate=7", "engines.b.slots=3", "workload.tenants=[{name: t}]",
                                  "engines.b.model_file=synthetic:", "slo={ttft_ms: 7}"});
  ASSERT_TRUE(full.ok() && quick.ok() && set.ok()) << full.status() << quick.status() << set.status();
  EXPECT_EQ(full->load.rate, 5);
  EXPECT_EQ(quick->load.rate, 2);
  EXPECT_EQ(quick->load.duration, seconds(1));
  EXPECT_EQ(quick->load.mode, LoadSpec::Mode::kPoisson);
  EXPECT_EQ(set->load.rate, 7);
  EXPECT_EQ(set->engines[1].slots, 3);
  EXPECT_EQ(set->workload.tenants[0].name, "t");
  EXPECT_EQ(set->engines[1].model_file, "synthetic:");
  EXPECT_EQ(set->slo.ttft_ms, 7);
}

TEST(Scenario, EveryFaultIsNamedWithFileLineAndKey) {
  const auto scenario = ParseScenario("bad.yaml",
                                      "name: demo\n"
                                      "engines:\n"
                                      "  - {name: a, start: sluice, url: \"grpc://x\"}\n"
                                      "load:\n"
                                      "  mode: poison\n"
                                      "  raet: 5\n"
                                      "checks:\n"
                                      "  - {metric: ttft_p96_ms, at_most: 1}\n"
                                      "  - {metric: ttft_p95_ms, arm: nobody}\n",
                                      false, {});
  const std::string all(scenario.status().message());
  EXPECT_THAT(all, HasSubstr("bad.yaml:3: engines[0].start"));
  EXPECT_THAT(all, HasSubstr("bad.yaml:5: load.mode"));
  EXPECT_THAT(all, HasSubstr("bad.yaml:6: load.raet: unknown key (did you mean rate?)"));
  EXPECT_THAT(all, HasSubstr("bad.yaml:8: checks[0].metric: 'ttft_p96_ms' is not measured"));
  EXPECT_THAT(all, HasSubstr("bad.yaml:9: checks[1].at_most: needs one limit"));
  EXPECT_THAT(all, HasSubstr("no engine is named 'nobody'"));
}

TEST(Scenario, ImagesAreRefusedAndNotOverlooked) {
  const std::string refusal = "image prompts are not supported; allowed: text, as the engine takes no images";
  const auto scenario = ParseScenario(
      "f.yaml", "name: x\nengines: [{name: a, url: \"grpc://x\"}]\nworkload:\n  images: [cat.png]\n", false, {});
  EXPECT_THAT(std::string(scenario.status().message()), HasSubstr("f.yaml:4: workload.images: " + refusal));
  const auto comparison = ReadComparison("c.yaml",
                                         "benchmark: {max_tokens: 5}\nmodels:\n  - {name: m, image: cat.png}\n"
                                         "questions: [what]\nengines: [{name: a, url: \"grpc://x\"}, "
                                         "{name: b, url: \"grpc://y\"}]\n");
  EXPECT_THAT(std::string(comparison.status().message()), HasSubstr("c.yaml:3: models[0].image: " + refusal));
  const std::string path = testing::TempDir() + "sluice-image-prompts.jsonl";
  std::ofstream(path) << "{\"prompt\": \"what is this\"}\n{\"prompt\": \"and this\", \"image\": \"cat.png\"}\n";
  EXPECT_THAT(std::string(ReadPrompts(path).status().message()), HasSubstr("prompts.jsonl:2: image prompts are not"));
}

TEST(Scenario, EveryShippedFileReads) {
  int scenarios = 0, comparisons = 0;
  for (const auto& entry : std::filesystem::directory_iterator("loadtest/scenarios")) {
    const std::string path = entry.path().string();
    const auto text = ReadTextFile(path);
    ASSERT_TRUE(text.ok()) << text.status();
    if (IsComparison(path, *text)) {
      const auto models = ReadComparison(path, *text);
      ASSERT_TRUE(models.ok()) << models.status();
      for (const ComparisonModel& model : *models) {
        const auto scenario = ParseScenario(path, model.scenario_yaml, false, {});
        ASSERT_TRUE(scenario.ok()) << scenario.status() << "\n" << model.scenario_yaml;
        EXPECT_EQ(scenario->workload.prompts.size(), static_cast<size_t>(model.questions));
        EXPECT_EQ(scenario->load.requests, model.questions);
      }
      ++comparisons;
      continue;
    }
    for (const bool quick : {false, true}) {
      const auto scenario = ParseScenario(path, *text, quick, {});
      EXPECT_TRUE(scenario.ok()) << scenario.status();
    }
    ++scenarios;
  }
  EXPECT_GE(scenarios, 6);
  EXPECT_GE(comparisons, 1);
}

TEST(Comparison, FaultsAndTheFiftyQuestions) {
  const auto bad = ReadComparison("c.yaml", "benchmark: {max_tokens: 0}\nmodels: []\nquestions: []\n");
  const std::string all(bad.status().message());
  EXPECT_THAT(all, HasSubstr("c.yaml:1: benchmark.max_tokens"));
  EXPECT_THAT(all, HasSubstr("questions: none"));
  EXPECT_THAT(all, HasSubstr("engines"));
  const auto text = ReadTextFile("loadtest/scenarios/fifty.yaml");
  const auto fifty = ReadComparison("fifty.yaml", *text);
  ASSERT_TRUE(fifty.ok()) << fifty.status();
  EXPECT_EQ(fifty->at(0).questions, 50);
}

TEST(Session, ArmsTakeTurnsAtBeingFirst) {
  EXPECT_EQ(ArmOrder(3, 0), (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(ArmOrder(3, 1), (std::vector<size_t>{2, 1, 0}));
}

}  // namespace
}  // namespace sluice::loadtest
