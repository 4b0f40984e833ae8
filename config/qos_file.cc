#include "config/qos_file.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "config/lists.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "qos/policy_faults.h"
#include "qos/policy_metric.h"

namespace sluice::config {
namespace {

using qos::Action;
using qos::ActionKind;
using qos::Objective;
using qos::Policy;

constexpr size_t kMaxPolicies = qos::PolicySet::kMaxPolicies;
constexpr size_t kMaxListed = 10'000, kMaxQuotas = 10'000, kMaxText = 1024;
constexpr int64_t kDayMs = 86'400'000, kMaxTokens = 1 << 20;
constexpr double kPercent = 100;
constexpr std::string_view kActionsAllowed =
    "limit_max_tokens, switch_pipeline, shed, queue, open_circuit, unload_idle_models, alert, prefer_upstream";
constexpr std::string_view kShapeAllowed =
    "an action alone in its map, as {limit_max_tokens: 128}, or unload_idle_models";
const std::vector<std::string> kActions = {"limit_max_tokens", "switch_pipeline",    "shed",  "queue",
                                           "open_circuit",     "unload_idle_models", "alert", "prefer_upstream"};
const std::vector<std::pair<std::string, std::string>> kPipelines = {{"baseline", "baseline"}, {"ttft", "ttft"}};

void ReadClasses(Section& section, std::string_view key, uint8_t* out) {
  std::vector<std::string> names;
  section.Names(key, qos::kQosClassCount, &names);
  for (const std::string& name : names) {
    if (const std::optional<qos::QosClass> c = qos::ParseQosClass(name)) {
      *out |= static_cast<uint8_t>(1 << static_cast<int>(*c));
    } else {
      section.Fault(key, Quote(name) + " is not a class", "system, interactive, standard, batch");
    }
  }
}

// All are meant by leaving a list out; an empty one is rather a slip.
void RefuseEmptyList(Section& section, std::string_view key) {
  const YamlNode* const list = section.Value(key);
  if (list == nullptr || list->kind != YamlNode::Kind::kList || !list->items.empty()) return;
  section.Fault(key, "is an empty list", "at least one, or no list for all");
}

void ReadNames(Section& section, std::string_view key, absl::flat_hash_set<std::string>* out) {
  std::vector<std::string> names;
  section.Names(key, kMaxListed, &names);
  out->insert(names.begin(), names.end());
  RefuseEmptyList(section, key);
}

qos::Scope ReadScope(Section section) {
  qos::Scope scope;
  ReadNames(section, "tenants", &scope.tenants);
  ReadNames(section, "models", &scope.models);
  ReadClasses(section, "classes", &scope.classes);
  RefuseEmptyList(section, "classes");
  return scope;
}

void ReadMetric(Section& section, Objective* out) {
  section.Require("metric", qos::PolicyMetricsAllowed());
  section.Scalar("metric", /*literal=*/false, qos::PolicyMetricsAllowed(), [out](std::string_view text, Source) {
    const auto metric = qos::ParsePolicyMetric(text);
    if (!metric.ok()) return fmt::format("{}: {}", Quote(text), ToStd(metric.status().message()));
    out->metric = text;
    out->signal = metric->signal;
    out->quantile = metric->quantile;
    return std::string();
  });
}

void ReadObjective(Section& section, Objective* out) {
  ReadMetric(section, out);
  section.Number("at_most", 0, 1e9, &out->threshold);
  out->at_least = section.Has("at_least");
  section.Number("at_least", 0, 1e9, &out->threshold);
  if (section.Has("at_most") == section.Has("at_least")) {
    section.Fault("at_most", section.Has("at_most") ? "stands beside at_least" : "is missing, and so is at_least",
                  "at_most or at_least, one of them");
  }
  section.Millis("window_ms", 1000, 3'600'000, &out->window);
  section.Integer("min_samples", 1, 1'000'000, &out->min_samples);
  for (const char* key : {"window_ms", "min_samples"}) {
    if (out->metric.empty() || qos::KindOf(out->signal) != qos::SignalKind::kLevel || !section.Has(key)) continue;
    section.Fault(key, fmt::format("has no meaning for {}, whose newest reading counts", out->metric),
                  "violated_for_ms of the policy, for a level that must last");
  }
  section.Choice<qos::Severity>(
      "severity",
      {{"info", qos::Severity::kInfo}, {"warning", qos::Severity::kWarning}, {"critical", qos::Severity::kCritical}},
      &out->severity);
}

void ReadQueue(Section section, Action* out) {
  section.Require("classes", "interactive, standard, batch");
  ReadClasses(section, "classes", &out->classes);
  section.Require("at_most_running", "a whole number from 1 to 1000000");
  section.Integer("at_most_running", 1, 1'000'000, &out->limit);
}

void ReadOpenCircuit(Section section, Action* out) {
  section.Require("pipeline", "baseline, ttft");
  section.Choice<std::string>("pipeline", kPipelines, &out->target);
  section.Require("for_ms", "a whole number of milliseconds");
  section.Millis("for_ms", 1, kDayMs, &out->duration);
}

// One action by its name; the section holds nothing else.
Action ReadAction(Section& section, const std::string& name) {
  Action out;
  if (name == "limit_max_tokens") {
    out.kind = ActionKind::kLimitMaxTokens;
    section.Integer(name, 1, kMaxTokens, &out.limit);
  } else if (name == "switch_pipeline") {
    out.kind = ActionKind::kSwitchPipeline;
    section.Choice<std::string>(name, kPipelines, &out.target);
  } else if (name == "shed") {
    out.kind = ActionKind::kShed;
    ReadClasses(section, name, &out.classes);
  } else if (name == "queue") {
    out.kind = ActionKind::kQueue;
    ReadQueue(section.Map(name), &out);
  } else if (name == "open_circuit") {
    out.kind = ActionKind::kOpenCircuit;
    ReadOpenCircuit(section.Map(name), &out);
  } else if (name == "alert") {
    out.kind = ActionKind::kAlert;
    section.Name(name, &out.target);
  } else if (name == "prefer_upstream") {
    out.kind = ActionKind::kPreferUpstream;
    section.Name(name, &out.target);
  } else {
    const std::optional<std::string> nearest = NearestName(name, kActions);
    section.Refuse(name, nearest ? fmt::format("unknown action (did you mean {}?)", *nearest) : "unknown action",
                   kActionsAllowed);
  }
  return out;
}

// A step that is not a map: the one action that takes nothing.
void ReadBareAction(const YamlNode& node, const std::string& path, Faults& faults, std::vector<Action>* out) {
  if (node.kind == YamlNode::Kind::kScalar && node.text == "unload_idle_models") {
    out->push_back({.kind = ActionKind::kUnloadIdleModels});
    return;
  }
  const bool known = std::find(kActions.begin(), kActions.end(), node.text) != kActions.end();
  if (node.kind != YamlNode::Kind::kScalar || known) {
    faults.Add(node.line, path, known ? node.text + " says nothing" : "is not an action", kShapeAllowed);
    return;
  }
  const std::optional<std::string> nearest = NearestName(node.text, kActions);
  faults.Add(node.line, path,
             nearest ? fmt::format("unknown action {} (did you mean {}?)", Quote(node.text), *nearest)
                     : "unknown action " + Quote(node.text),
             kActionsAllowed);
}

void ReadLadder(Section& policy, Faults& faults, std::vector<Action>* out) {
  const YamlNode* const ladder = policy.Value("ladder");
  if (ladder == nullptr || ladder->kind == YamlNode::Kind::kNull) return;
  if (ladder->kind != YamlNode::Kind::kList) {
    policy.Fault("ladder", "is not a list", "a list of actions");
    return;
  }
  for (size_t i = 0; i < ladder->items.size(); ++i) {
    const YamlNode& node = ladder->items[i];
    const std::string path = fmt::format("{}.ladder[{}]", policy.path(), i);
    if (node.kind != YamlNode::Kind::kMap) {
      ReadBareAction(node, path, faults, out);
      continue;
    }
    Section section(&node, node.line, path, faults, nullptr);
    if (node.members.size() != 1) faults.Add(node.line, path, "is not one action", kShapeAllowed);
    for (const YamlMember& member : node.members) out->push_back(ReadAction(section, member.key));
  }
}

void ReadPolicy(Section& section, Faults& faults, Policy* out) {
  section.Require("id", kNameAllowed);
  section.Name("id", &out->id);
  section.Text("description", kMaxText, &out->description);
  section.Choice<qos::PolicyMode>(
      "mode",
      {{"off", qos::PolicyMode::kOff}, {"dry_run", qos::PolicyMode::kDryRun}, {"enforce", qos::PolicyMode::kEnforce}},
      &out->mode);
  uint32_t bps = 0;
  if (section.PercentAsBps("enforced_percent", &bps) != Source::kDefault) out->enforced_percent = bps / kPercent;
  section.Integer("priority", -1'000'000, 1'000'000, &out->priority);
  out->scope = ReadScope(section.Map("scope"));
  const bool acts_on = section.Has("acts_on");
  if (qos::Scope scope = ReadScope(section.Map("acts_on")); acts_on) out->acts_on = std::move(scope);
  section.Require("objectives", "1 to 8 objectives");
  section.Each("objectives", kMaxListed, [&](Section& item) { ReadObjective(item, &out->objectives.emplace_back()); });
  ReadLadder(section, faults, &out->ladder);
  section.Millis("cooldown_ms", 0, kDayMs, &out->cooldown);
  section.Millis("violated_for_ms", 0, kDayMs, &out->violated_for);
  section.Millis("recovered_for_ms", 0, kDayMs, &out->recovered_for);
  double margin = 0;
  if (section.Number("recovery_margin_percent", 0, 90, &margin) != Source::kDefault) {
    out->recovery_margin = margin / kPercent;
  }
  section.Integer("max_actions", 1, 1000, &out->max_actions);
  section.Millis("action_window_ms", 1000, kDayMs, &out->action_window);
  section.Integer("max_reversals", 0, 1000, &out->max_reversals);
}

void ReadQuota(Section& section, qos::QuotaRule* out) {
  for (const auto& [key, name] : {std::pair{"tenant", &out->tenant}, std::pair{"model", &out->model}}) {
    section.Scalar(key, /*literal=*/false, "* for all that no quota names, or a name", [name](auto text, Source) {
      const Parsed<std::string> parsed = text == "*" ? Parsed<std::string>{"*", ""} : ParseName(text);
      if (parsed.value) *name = *parsed.value;
      return parsed.what;
    });
  }
  qos::QuotaLimits& limits = out->limits;
  section.Number("requests_per_second", 0, 1e6, &limits.requests_per_second);
  section.Number("request_burst", 0, 1e6, &limits.request_burst);
  section.Integer("concurrent_requests", 0, 1'000'000, &limits.concurrent_requests);
  section.Integer("prompt_tokens_per_minute", 0, 1'000'000'000'000, &limits.prompt_tokens_per_minute);
  section.Integer("output_tokens_per_minute", 0, 1'000'000'000'000, &limits.output_tokens_per_minute);
}

// The line of "ladder[2]", "objectives[0].at_most" or "cooldown_ms" in `policy`; of what is nearest above, where the
// file does not give it.
int LineOf(const YamlNode& policy, std::string_view field) {
  int line = policy.line;
  const YamlNode* at = &policy;
  while (!field.empty() && at != nullptr) {
    const size_t end = std::min(field.find_first_of(".["), field.size());
    at = MemberOf(*at, field.substr(0, end), &line);
    field.remove_prefix(end);
    if (field.starts_with('[')) {
      const Parsed<int64_t> index = ParseInteger(field.substr(1, field.find(']') - 1), 0, kMaxListed);
      field.remove_prefix(field.find(']') + 1);
      const bool there = at != nullptr && index.value && static_cast<size_t>(*index.value) < at->items.size();
      at = there ? &at->items[static_cast<size_t>(*index.value)] : nullptr;
      if (there) line = at->line;
    }
    if (field.starts_with('.')) field.remove_prefix(1);
  }
  return line;
}

// Rules that span keys, judged once each key is fit.
void CheckWhole(const YamlNode& root, const std::vector<Policy>& policies, const QosFile& out, Faults& faults) {
  if (!faults.empty()) return;
  int line = root.line;
  const YamlNode* const list = MemberOf(root, "policies", &line);
  const auto add = [&](size_t index, std::string_view field, std::string_view what, std::string_view allowed) {
    const YamlNode& node = list->items[index];
    faults.Add(LineOf(node, field), fmt::format("policies[{}]{}{}", index, field.empty() ? "" : ".", field), what,
               allowed);
  };
  for (const qos::PolicyFault& fault : qos::FindPolicyFaults(policies)) {
    add(fault.index, fault.field, fault.what, fault.allowed);
  }
  std::vector<std::string> names;
  for (const AlertWebhook& alert : out.alerts) names.push_back(alert.name);
  const std::string allowed =
      names.empty() ? "a name under alerts, which has none" : fmt::format("{}", fmt::join(names, ", "));
  for (size_t i = 0; i < policies.size(); ++i) {
    for (size_t step = 0; step < policies[i].ladder.size(); ++step) {
      const Action& action = policies[i].ladder[step];
      if (action.kind != ActionKind::kAlert || std::find(names.begin(), names.end(), action.target) != names.end())
        continue;
      add(i, fmt::format("ladder[{}].alert", step), fmt::format("no alert is called {}", Quote(action.target)),
          allowed);
    }
  }
}

}  // namespace

absl::StatusOr<QosFile> LoadQosFile(const std::string& path, uint64_t epoch) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode file, LoadYamlFile(path));
  Faults faults(path);
  QosFile out;
  std::vector<Policy> policies;
  // A file cut to nothing must not switch every limit off.
  if (file.kind == YamlNode::Kind::kNull) faults.Add(0, "", "is empty", "policies, or {} for none");
  {
    Section root(&file, file.line, "", faults, nullptr);
    root.Millis("evaluation_interval_ms", 50, 60'000, &out.evaluation_interval);
    root.Each("policies", kMaxPolicies, [&](Section& item) { ReadPolicy(item, faults, &policies.emplace_back()); });
    root.Each("quotas", kMaxQuotas, [&](Section& item) { ReadQuota(item, &out.quotas.emplace_back()); });
    ReadAlerts(root, &out.alerts);
  }
  CheckWhole(file, policies, out, faults);
  CheckAlerts(file, out.alerts, faults);
  CheckUnique(
      file, "quotas", out.quotas,
      [](const qos::QuotaRule& rule) { return fmt::format("tenant {}, model {}", rule.tenant, rule.model); }, faults);
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  SLUICE_ASSIGN_OR_RETURN(out.policies, qos::PolicySet::Create(std::move(policies), epoch));
  return out;
}

}  // namespace sluice::config
