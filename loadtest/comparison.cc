#include "loadtest/comparison.h"

#include <algorithm>

#include "base/status.h"
#include "fmt/format.h"
#include "loadtest/scenario_reader.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

using config::Section;
using config::YamlMember;
using config::YamlNode;
using Json = nlohmann::json;

// As YAML's flow style; what was quoted stays so.
std::string Flow(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "null";
    case YamlNode::Kind::kScalar:
      return node.quoted || node.text.find_first_of(":{}[],&*#?|-<>=!%@\\\"' ") != std::string::npos
                 ? Json(node.text).dump()
                 : node.text;
    case YamlNode::Kind::kList: {
      std::string text;
      for (const YamlNode& item : node.items) text += (text.empty() ? "" : ", ") + Flow(item);
      return "[" + text + "]";
    }
    case YamlNode::Kind::kMap:
      break;
  }
  std::string text;
  for (const YamlMember& m : node.members) text += (text.empty() ? "" : ", ") + m.key + ": " + Flow(m.value);
  return "{" + text + "}";
}

const YamlNode* Child(const YamlNode& map, std::string_view key) {
  for (const YamlMember& m : map.members) {
    if (m.key == key) return &m.value;
  }
  return nullptr;
}

struct Common {
  int max_tokens = 50;
  double temperature = 0;
  int64_t timeout_ms = 60000;
  bool ignore_eos = true;
  double e2e_at_most = 0;  // ratio of mean responses
  std::string description, engines, questions;
};

std::string ScenarioYaml(const Common& c, const ComparisonModel& m, const std::vector<std::string>& arms) {
  std::string text = fmt::format(
      "name: {}\ndescription: {}\nengines: {}\n"
      "workload: {{form: text, prompts: {}, output_tokens: {}, temperature: {}, timeout_ms: {}, ignore_eos: {}}}\n"
      "load: {{mode: closed, concurrency: 1, requests: {}, warmup_s: 2, blocks: {}}}\n"
      "compare: [e2e_mean_ms, e2e_p95_ms, ttft_mean_ms, ttft_p95_ms, tpot_mean_ms, output_tokens_per_s]\n"
      "checks:\n",
      m.name, Json(c.description).dump(), c.engines, c.questions, c.max_tokens, c.temperature, c.timeout_ms,
      c.ignore_eos, m.questions, m.cycles);
  text += "  - {metric: success_rate, at_least: 1}\n";
  if (c.e2e_at_most > 0) {
    text +=
        fmt::format("  - {{metric: e2e_mean_ms, arm: {}, versus: {}, at_most: {}}}\n", arms[1], arms[0], c.e2e_at_most);
  }
  return text;
}

// Every engine of this model with the model's file.
std::string EnginesFor(const YamlNode& engines, const std::string& file) {
  YamlNode copy = engines;
  for (YamlNode& engine : copy.items) {
    if (file.empty() || Child(engine, "model_file") != nullptr || Child(engine, "start") == nullptr) continue;
    engine.members.push_back(
        {.key = "model_file", .value = {.kind = YamlNode::Kind::kScalar, .quoted = true, .text = file}});
  }
  return Flow(copy);
}

struct ModelRow {
  ComparisonModel model;
  std::string file;
  bool enabled = true;
};

void ReadRows(Section& root, const Common& common, int questions, std::vector<ModelRow>* rows) {
  root.Each("models", 100, [&](Section& section) {
    ModelRow& row = rows->emplace_back();
    RefuseImages(section);
    section.Require("name", "a name");
    section.Name("name", &row.model.name);
    section.Text("size", 64, &row.model.size);
    section.Text("file", 4096, &row.file);
    row.model.questions = questions;
    section.Integer("questions", 1, 100000, &row.model.questions);
    row.model.cycles = 5;
    section.Integer("cycles", 1, 1000, &row.model.cycles);
    section.Bool("enabled", &row.enabled);
    row.model.max_tokens = common.max_tokens;
    row.model.temperature = common.temperature;
  });
  if (rows->empty()) root.Fault("models", "none", "at least one");
}

}  // namespace

bool IsComparison(const std::string& file, const std::string& text) {
  const auto root = config::ParseYaml(file, text);
  return root.ok() && Child(*root, "benchmark") != nullptr;
}

absl::StatusOr<std::vector<ComparisonModel>> ReadComparison(const std::string& file, const std::string& text) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode root, config::ParseYaml(file, text));
  config::Faults faults(file);
  Common common;
  std::vector<ModelRow> rows;
  std::vector<std::string> questions, arms;
  {
    Section section(&root, 1, "", faults, nullptr);
    RefuseImages(section);
    section.Text("description", 1 << 16, &common.description);
    {
      Section benchmark = section.Map("benchmark");
      RefuseImages(benchmark);
      benchmark.Integer("max_tokens", 1, 1 << 20, &common.max_tokens);
      benchmark.Number("temperature", 0, 2, &common.temperature);
      benchmark.Integer("timeout_ms", 1, 86400000, &common.timeout_ms);
      benchmark.Bool("ignore_eos", &common.ignore_eos);
      benchmark.Number("mean_response_at_most", 0, 1000, &common.e2e_at_most);
    }
    section.Paths("questions", 100000, &questions);
    if (questions.empty()) section.Fault("questions", "none", "at least one question");
    ReadRows(section, common, static_cast<int>(questions.size()), &rows);
    section.Require("engines", "a list of engines");
    section.Each("engines", 16, [&](Section& engine) {
      EngineSpec spec;
      ReadEngine(engine, &spec);
      arms.push_back(spec.name);
    });
    if (arms.size() < 2)
      section.Fault("engines", "fewer than two", "two or more; the first is the one to compare with");
  }
  SLUICE_RETURN_IF_ERROR(faults.ToStatus());
  std::vector<ComparisonModel> models;
  for (ModelRow& row : rows) {
    if (!row.enabled) continue;
    common.engines = EnginesFor(*Child(root, "engines"), row.file);
    common.questions =
        Json(std::vector<std::string>(
                 questions.begin(),
                 questions.begin() + std::min<long>(static_cast<long>(questions.size()), row.model.questions)))
            .dump();
    row.model.scenario_yaml = ScenarioYaml(common, row.model, arms);
    models.push_back(std::move(row.model));
  }
  return models;
}

namespace {

// One block of one engine in the ancestor's words.
Json CycleJson(const Cell& cell, int cycle, const ComparisonModel& model) {
  const auto at = [&](const char* metric) -> Json {
    const auto it = cell.per_block.find(metric);
    if (it == cell.per_block.end() || static_cast<size_t>(cycle) >= it->second.size()) return nullptr;
    return it->second[static_cast<size_t>(cycle)];
  };
  Json latency = at("e2e_mean_ms");
  return {{"engine", cell.arm},
          {"cycle", cycle + 1},
          {"questions", model.questions},
          {"totalTime", latency.is_null() ? Json() : Json(latency.get<double>() * model.questions)},
          {"avgLatency", latency},
          {"tokensPerSecond", at("output_tokens_per_s")},
          {"successRate", at("success_rate")}};
}

Json AverageJson(const Cell& cell) {
  const auto value = [&](const char* metric) -> Json {
    const Estimate e = ScalarOf(cell, metric);
    return e.known() ? Json(e.value) : Json();
  };
  return {{"avgLatency", value("e2e_mean_ms")},
          {"tokensPerSecond", value("output_tokens_per_s")},
          {"successRate", value("success_rate")}};
}

}  // namespace

std::string ComparisonJson(const ComparisonModel& model, const Summary& summary) {
  Json json{{"timestamp", summary.environment.count("time") > 0 ? summary.environment.at("time") : ""},
            {"benchmark_type", "fair_comparison"},
            {"note", "loaded once, warmed, engines interleaved; tokens as the servers count them; failures counted"},
            {"model", model.name},
            {"modelSize", model.size},
            {"questions", model.questions},
            {"cycles", model.cycles},
            {"maxTokens", model.max_tokens},
            {"temperature", model.temperature}};
  for (const Cell& cell : summary.cells) {
    Json& engine = json[cell.arm];
    for (int cycle = 0; cycle < cell.blocks; ++cycle) engine["cycles"].push_back(CycleJson(cell, cycle, model));
    engine["average"] = AverageJson(cell);
  }
  for (const Comparison& c : summary.comparisons) {
    if (c.metric != "e2e_mean_ms") continue;
    json["comparison"].push_back({{"engine", c.arm},
                                  {"against", c.against},
                                  {"meanResponseRatio", c.ratio.known() ? Json(c.ratio.value) : Json()},
                                  {"improvement", c.ratio.known() ? Json(100 * (1 - c.ratio.value)) : Json()},
                                  {"winner", c.winner.empty() ? "none" : c.winner}});
  }
  return json.dump(1) + "\n";
}

}  // namespace sluice::loadtest
