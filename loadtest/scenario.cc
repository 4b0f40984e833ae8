#include "loadtest/scenario.h"

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "loadtest/scenario_reader.h"
#include "loadtest/summary.h"

namespace sluice::loadtest {
namespace {

using config::Faults;
using config::Section;
using config::YamlMember;
using config::YamlNode;

constexpr size_t kMaxText = 1 << 16;
constexpr double kDaySeconds = 86400;

YamlMember* FindMember(YamlNode& map, std::string_view key) {
  for (YamlMember& member : map.members) {
    if (member.key == key) return &member;
  }
  return nullptr;
}

YamlNode* FindItem(YamlNode& list, std::string_view name) {
  size_t index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (error == std::errc() && end == name.data() + name.size()) {
    return index < list.items.size() ? &list.items[index] : nullptr;
  }
  for (YamlNode& item : list.items) {
    const YamlMember* member = FindMember(item, "name");
    if (member != nullptr && member->value.text == name) return &item;
  }
  return nullptr;
}

// Maps are merged key by key; anything else replaces what was there.
void LayOver(YamlNode& under, const YamlNode& over) {
  if (under.kind != YamlNode::Kind::kMap || over.kind != YamlNode::Kind::kMap) {
    under = over;
    return;
  }
  for (const YamlMember& member : over.members) {
    if (YamlMember* mine = FindMember(under, member.key)) {
      LayOver(mine->value, member.value);
    } else {
      under.members.push_back(member);
    }
  }
}

// "load.rate=5", "engines.ttft.url=grpc://...": the value is YAML, maps in braces.
absl::Status Override(YamlNode& root, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(fmt::format("--set {}: needs KEY=VALUE, such as load.rate=5", text));
  }
  const std::string given = text.substr(equals + 1);
  SLUICE_ASSIGN_OR_RETURN(YamlNode value, config::ParseYaml("--set " + text, given));
  if (value.kind == YamlNode::Kind::kMap && !given.starts_with('{')) {  // "synthetic:" is meant as a text
    value = {.kind = YamlNode::Kind::kScalar, .text = given};
  }
  YamlNode* node = &root;
  std::string_view path = std::string_view(text).substr(0, equals);
  while (!path.empty()) {
    const std::string_view key = path.substr(0, path.find('.'));
    path = path.size() > key.size() ? path.substr(key.size() + 1) : std::string_view();
    if (node->kind == YamlNode::Kind::kList) {
      node = FindItem(*node, key);
      if (node == nullptr) {
        return absl::InvalidArgumentError(fmt::format("--set {}: the list has no item named '{}'", text, key));
      }
      continue;
    }
    node->kind = YamlNode::Kind::kMap;
    if (FindMember(*node, key) == nullptr) node->members.push_back({.key = std::string(key)});
    node = &FindMember(*node, key)->value;
  }
  *node = value;
  return absl::OkStatus();
}

void ReadSeconds(Section& section, std::string_view key, Duration* out) {
  double seconds = ToSeconds(*out);
  section.Number(key, 0, kDaySeconds, &seconds);
  *out = FromMillis(seconds * 1000);
}

void ReadMillis(Section& section, std::string_view key, Duration* out) {
  section.Millis(key, 0, static_cast<int64_t>(kDaySeconds) * 1000, out);
}

// `key: 128` or `key: {kind: lognormal, mean: 128, stddev: 64, min: 1, max: 512}`.
void ReadLength(Section& section, std::string_view key, LengthSpec* out) {
  if (!section.IsMap(key)) {
    section.Number(key, 0, 1 << 20, &out->mean);
    return;
  }
  Section map = section.Map(key);
  using Kind = LengthSpec::Kind;
  map.Choice<Kind>("kind",
                   {{"fixed", Kind::kFixed},
                    {"uniform", Kind::kUniform},
                    {"normal", Kind::kNormal},
                    {"lognormal", Kind::kLognormal}},
                   &out->kind);
  map.Number("mean", 0, 1 << 20, &out->mean);
  map.Number("stddev", 0, 1 << 20, &out->stddev);
  map.Integer("min", 0, 1 << 20, &out->min);
  map.Integer("max", 1, 1 << 20, &out->max);
  if (out->min > out->max) map.Fault("min", fmt::format("{} is above max {}", out->min, out->max), "at most max");
}

void ReadWorkload(Section section, WorkloadSpec* out) {
  RefuseImages(section);
  using Form = WorkloadSpec::Form;
  section.Choice<Form>("form", {{"text", Form::kText}, {"chat", Form::kChat}, {"tokens", Form::kTokens}}, &out->form);
  ReadLength(section, "prompt_tokens", &out->prompt_tokens);
  ReadLength(section, "output_tokens", &out->output_tokens);
  {
    Section prefix = section.Map("shared_prefix");
    prefix.Integer("tokens", 0, 1 << 20, &out->shared_prefix_tokens);
    prefix.Number("share", 0, 1, &out->shared_prefix_share);
    prefix.Integer("groups", 1, 1 << 20, &out->shared_prefix_groups);
  }
  {
    Section prompt = section.Map("long_prompt");
    prompt.Integer("tokens", 0, 1 << 20, &out->long_prompt_tokens);
    prompt.Number("share", 0, 1, &out->long_prompt_share);
  }
  ReadLength(section, "turns", &out->turns);
  ReadMillis(section, "think_time_ms", &out->think_time);
  section.Each("tenants", 1000, [&](Section& tenant) {
    TenantSpec& spec = out->tenants.emplace_back();
    tenant.Require("name", "a name");
    tenant.Name("name", &spec.name);
    tenant.Number("weight", 0, 1e6, &spec.weight);
    enum class Class { kSystem, kInteractive, kStandard, kBatch } chosen = Class::kStandard;
    const std::vector<std::pair<std::string, Class>> classes = {{"system", Class::kSystem},
                                                                {"interactive", Class::kInteractive},
                                                                {"standard", Class::kStandard},
                                                                {"batch", Class::kBatch}};
    if (tenant.Choice<Class>("class", classes, &chosen) == config::Source::kDefault) return;
    spec.priority_class = classes[static_cast<size_t>(chosen)].first;
  });
  section.Number("cancel_share", 0, 1, &out->cancel_share);
  section.Integer("cancel_after", 1, 1 << 20, &out->cancel_after);
  section.Number("slow_share", 0, 1, &out->slow_share);
  ReadMillis(section, "slow_delay_ms", &out->slow_delay);
  section.Text("prompts_file", 4096, &out->prompts_file);
  section.Paths("prompts", 10000, &out->prompts);
  section.Number("temperature", 0, 2, &out->temperature);
  section.Bool("ignore_eos", &out->ignore_eos);
  ReadMillis(section, "timeout_ms", &out->timeout);
  section.Integer("users", 0, 1'000'000'000, &out->users);
  if (out->turns.mean > 1 && out->form != Form::kChat) section.Fault("turns", "more than one turn", "form: chat");
}

void ReadTexts(Section section, std::map<std::string, std::string>* out) {
  for (const YamlMember& member : section.members()) section.Text(member.key, kMaxText, &(*out)[member.key]);
}

void ReadLevels(Section& section, std::vector<double>* out) {
  std::vector<std::string> texts;
  section.Paths("levels", 1000, &texts);
  if (!texts.empty()) out->clear();
  for (const std::string& text : texts) {
    const auto parsed = config::ParseNumber(text, 0.001, 1e6);
    if (!parsed.value) section.Fault("levels", parsed.what, "numbers from 0.001 to 1000000");
    out->push_back(parsed.value.value_or(1));
  }
}

void ReadLoad(Section section, LoadSpec* out) {
  using Mode = LoadSpec::Mode;
  section.Choice<Mode>("mode",
                       {{"closed", Mode::kClosed},
                        {"constant", Mode::kConstant},
                        {"poisson", Mode::kPoisson},
                        {"gamma", Mode::kGamma},
                        {"ramp", Mode::kRamp},
                        {"trace", Mode::kTrace}},
                       &out->mode);
  section.Integer("concurrency", 1, 100000, &out->concurrency);
  section.Number("rate", 0.001, 1e6, &out->rate);
  out->rate_end = out->rate;
  section.Number("rate_end", 0.001, 1e6, &out->rate_end);
  section.Number("burstiness", 0.01, 1000, &out->burstiness);
  ReadLevels(section, &out->levels);
  section.Integer("requests", 0, 100'000'000, &out->requests);
  ReadSeconds(section, "duration_s", &out->duration);
  ReadSeconds(section, "warmup_s", &out->warmup);
  section.Integer("blocks", 1, 1000, &out->blocks);
  section.Text("trace_file", 4096, &out->trace_file);
  if ((out->mode == Mode::kTrace) != !out->trace_file.empty()) {
    section.Fault("trace_file", "mode: trace and trace_file go together", "both or neither");
  }
  if (out->requests == 0 && out->duration.count() == 0) section.Fault("duration_s", "0", "above 0, or requests");
}

void ReadCheck(Section& section, CheckSpec* out) {
  section.Require("metric", "a metric");
  section.Text("metric", 64, &out->metric);
  section.Text("arm", 128, &out->arm);
  section.Text("versus", 128, &out->versus);
  using config::Source;
  out->has_at_most = section.Number("at_most", -1e12, 1e12, &out->at_most) != Source::kDefault;
  out->has_at_least = section.Number("at_least", -1e12, 1e12, &out->at_least) != Source::kDefault;
  out->has_stretch = section.Number("stretch", -1e12, 1e12, &out->stretch) != Source::kDefault;
  if (out->has_at_most == out->has_at_least) section.Fault("at_most", "needs one limit", "one of at_most and at_least");
  if (!out->metric.empty() && !IsScalar(out->metric)) {
    section.Fault("metric", "'" + out->metric + "' is not measured", "see the metrics in docs/benchmarks.md");
  }
}

void CheckNames(Section& root, const Scenario& s) {
  std::vector<std::string> names;
  for (const EngineSpec& e : s.engines) {
    if (std::find(names.begin(), names.end(), e.name) != names.end()) {
      root.Fault("engines", "two are named '" + e.name + "'", "different names");
    }
    names.push_back(e.name);
  }
  if (names.empty()) root.Fault("engines", "none", "at least one");
  for (const CheckSpec& check : s.checks) {
    for (const std::string& arm : {check.arm, check.versus}) {
      if (arm.empty() || std::find(names.begin(), names.end(), arm) != names.end()) continue;
      root.Fault("checks", "no engine is named '" + arm + "'", fmt::format("{}", fmt::join(names, ", ")));
    }
  }
  for (const std::string& metric : s.compare) {
    if (!IsScalar(metric)) root.Fault("compare", "'" + metric + "' is not measured", "see docs/benchmarks.md");
  }
}

void ReadScenario(Section& root, Scenario* out) {
  using Kind = Scenario::Kind;
  RefuseImages(root);
  root.Require("name", "a name");
  root.Name("name", &out->name);
  root.Text("description", kMaxText, &out->description);
  root.Choice<Kind>("kind",
                    {{"measure", Kind::kMeasure},
                     {"stress", Kind::kStress},
                     {"regression", Kind::kRegression},
                     {"soak", Kind::kSoak},
                     {"fault", Kind::kFault}},
                    &out->kind);
  root.Integer("seed", 0, INT64_MAX, &out->seed);
  root.Each("engines", 16, [&](Section& engine) { ReadEngine(engine, &out->engines.emplace_back()); });
  ReadWorkload(root.Map("workload"), &out->workload);
  ReadLoad(root.Map("load"), &out->load);
  {
    Section slo = root.Map("slo");
    slo.Number("ttft_ms", 0, 1e9, &out->slo.ttft_ms);
    slo.Number("tpot_ms", 0, 1e9, &out->slo.tpot_ms);
    slo.Number("e2e_ms", 0, 1e9, &out->slo.e2e_ms);
  }
  {
    Section limits = root.Map("limits");
    limits.Number("lag_ms", 0.1, 1e6, &out->limits.lag_ms);
    limits.Number("generator_cpu", 1, 10000, &out->limits.generator_cpu);
    limits.Integer("max_in_flight", 1, 1'000'000, &out->limits.max_in_flight);
    limits.Number("max_error_rate", 0, 1, &out->limits.max_error_rate);
  }
  root.Each("faults", 100, [&](Section& fault) {
    FaultSpec& spec = out->faults.emplace_back();
    using Action = FaultSpec::Action;
    fault.Require("action", "stall, kill or restart");
    fault.Choice<Action>("action", {{"stall", Action::kStall}, {"kill", Action::kKill}, {"restart", Action::kRestart}},
                         &spec.action);
    ReadSeconds(fault, "at_s", &spec.at);
    ReadSeconds(fault, "length_s", &spec.length);
  });
  root.Each("checks", 200, [&](Section& check) { ReadCheck(check, &out->checks.emplace_back()); });
  root.Names("compare", 100, &out->compare);
  root.Number("tolerance", 0.001, 10, &out->tolerance);
  CheckNames(root, *out);
}

}  // namespace

void RefuseImages(Section& section) {
  for (const char* key : {"image", "images"}) {
    if (section.Has(key)) section.Refuse(key, "image prompts are not supported", "text, as the engine takes no images");
  }
}

void ReadEngine(Section& section, EngineSpec* out) {
  section.Require("name", "a name, once");
  section.Name("name", &out->name);
  section.Text("start", 4096, &out->start);
  section.Text("url", 4096, &out->url);
  section.Text("door", 16, &out->door);
  section.Text("model", 128, &out->model);
  section.Text("model_file", 4096, &out->model_file);
  section.Paths("arguments", 200, &out->arguments);
  ReadTexts(section.Map("env"), &out->env);
  section.Integer("slots", 0, 4096, &out->slots);
  section.Integer("slot_context", 0, 1 << 20, &out->slot_context);
  section.Integer("threads", 0, 1024, &out->threads);
  section.Text("token", 4096, &out->token);
  section.Text("ca_file", 4096, &out->ca_file);
  ReadTexts(section.Map("headers"), &out->headers);
  section.Text("body_json", kMaxText, &out->body_json);
  section.Text("expect_pipeline", 64, &out->expect_pipeline);
  if (out->start.empty() == out->url.empty()) {
    section.Fault("start", "neither or both of start and url",
                  "start: sluice | llama-server | PATH, or url: SCHEME://HOST:PORT");
  }
  if (!out->door.empty() && out->door != "grpc" && out->door != "kserve") {
    section.Fault("door", "'" + out->door + "'", "grpc or kserve");
  }
}

const char* KindName(Scenario::Kind kind) {
  switch (kind) {
    case Scenario::Kind::kStress:
      return "stress";
    case Scenario::Kind::kRegression:
      return "regression";
    case Scenario::Kind::kSoak:
      return "soak";
    case Scenario::Kind::kFault:
      return "fault";
    case Scenario::Kind::kMeasure:
      break;
  }
  return "measure";
}

absl::StatusOr<Scenario> ParseScenario(const std::string& file, const std::string& text, bool quick,
                                       const std::vector<std::string>& overrides) {
  SLUICE_ASSIGN_OR_RETURN(YamlNode root, config::ParseYaml(file, text));
  if (root.kind == YamlNode::Kind::kMap) {
    if (const YamlMember* member = FindMember(root, "quick")) {
      const YamlNode overlay = member->value;
      std::erase_if(root.members, [](const YamlMember& m) { return m.key == "quick"; });
      if (quick) LayOver(root, overlay);
    }
  }
  for (const std::string& item : overrides) SLUICE_RETURN_IF_ERROR(Override(root, item));
  Faults faults(file);
  Scenario scenario;
  {
    Section section(&root, 1, "", faults, nullptr);
    ReadScenario(section, &scenario);
  }
  SLUICE_RETURN_IF_ERROR(faults.ToStatus());
  return scenario;
}

}  // namespace sluice::loadtest
