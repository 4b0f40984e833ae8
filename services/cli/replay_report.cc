#include "services/cli/replay_report.h"

#include <algorithm>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::cli {
namespace {

using nlohmann::json;
using qos::ReplayReport;

void Add(std::string& text, const std::string& line) { text += line + "\n"; }

void AddEffect(std::string& text, const char* mode, const ReplayReport::Effect& e) {
  if (e.shed + e.shortened + e.switched == 0) return;
  Add(text, fmt::format("    {:<8} shed {} requests, shortened {}, switched {}; {} prompt and {} output tokens less",
                        mode, e.shed, e.shortened, e.switched, e.prompt_tokens_saved, e.output_tokens_saved));
}

void AddPolicy(std::string& text, const std::string& id, const ReplayReport::PolicyReport& policy) {
  Add(text, fmt::format("  {}: up to step {}, {} actions", id, policy.highest_step, policy.actions));
  for (const auto& [metric, duration] : policy.violated) {
    Add(text, fmt::format("    {} violated for {:.1f} s", metric, ToSeconds(duration)));
  }
  AddEffect(text, "enforced", policy.enforced);
  AddEffect(text, "dry_run", policy.dry_run);
}

void AddReport(std::string& text, const NamedReport& named) {
  const ReplayReport& r = named.report;
  Add(text, fmt::format("\n== {}", named.name));
  for (const auto& [id, policy] : r.policies) AddPolicy(text, id, policy);
  for (const auto& [word, n] : r.quota_refusals) Add(text, fmt::format("  quotas refuse {} ({})", n, word));
  for (const auto& [name, n] : r.shed_by_class) Add(text, fmt::format("  shed of class {}: {}", name, n));
  if (r.let_in > 0) {
    Add(text,
        fmt::format("  {} requests that were refused then would be let in; how they had gone is unknown", r.let_in));
  }
  Add(text, r.differ == 0 ? "  every decision is as recorded"
                          : fmt::format("  {} of {} decisions differ from the recorded ones", r.differ, r.requests));
  for (const ReplayReport::Step& step : r.steps) {
    Add(text, fmt::format("  {:>9.2f} s  {}: {} ({} {:.4g}, threshold {:.4g}){}", ToSeconds(step.at), step.policy,
                          step.what, step.metric, step.value, step.threshold, step.dry_run ? ", dry_run" : ""));
  }
  if (r.steps_left_out > 0) Add(text, fmt::format("  and {} more steps", r.steps_left_out));
}

json Json(const ReplayReport::Effect& e) {
  return {{"shed", e.shed},
          {"shortened", e.shortened},
          {"switched", e.switched},
          {"prompt_tokens_saved", e.prompt_tokens_saved},
          {"output_tokens_saved", e.output_tokens_saved}};
}

json Json(const NamedReport& named) {
  const ReplayReport& r = named.report;
  json policies = json::object();
  for (const auto& [id, policy] : r.policies) {
    json violated = json::object();
    for (const auto& [metric, duration] : policy.violated) violated[metric] = ToSeconds(duration);
    policies[id] = {{"enforced", Json(policy.enforced)},
                    {"dry_run", Json(policy.dry_run)},
                    {"highest_step", policy.highest_step},
                    {"actions", policy.actions},
                    {"violated_s", violated}};
  }
  json steps = json::array();
  for (const ReplayReport::Step& s : r.steps) {
    steps.push_back({{"at_s", ToSeconds(s.at)},
                     {"policy", s.policy},
                     {"metric", s.metric},
                     {"what", s.what},
                     {"value", s.value},
                     {"threshold", s.threshold},
                     {"dry_run", s.dry_run}});
  }
  return {{"policies_file", named.name},
          {"period_s", ToSeconds(r.period)},
          {"requests", r.requests},
          {"recorded", r.recorded},
          {"policies", policies},
          {"quota_refusals", r.quota_refusals},
          {"shed_by_class", r.shed_by_class},
          {"let_in", r.let_in},
          {"differ", r.differ},
          {"steps", steps},
          {"steps_left_out", r.steps_left_out},
          {"log_torn", named.log.torn},
          {"log_sections", named.log.sections}};
}

}  // namespace

std::string ReplayText(const std::string& log, const std::vector<NamedReport>& reports, bool enforced) {
  const NamedReport& first = reports.front();
  std::string text;
  Add(text, fmt::format("{}: {} requests in {:.1f} s{}", log, first.report.requests, ToSeconds(first.report.period),
                        enforced ? ", every policy as if enforced" : ""));
  if (first.log.sections > 1) {
    Add(text, fmt::format("the last of {} processes that wrote to it", first.log.sections));
  }
  if (first.log.torn) Add(text, "its last line was cut off and is left out");
  for (const auto& [verdict, n] : first.report.recorded) Add(text, fmt::format("  recorded {:<22} {}", verdict, n));
  for (const NamedReport& named : reports) AddReport(text, named);
  text +=
      "\nRequests come, and those that are let in go, as they did then: that the rest would also be quicker is not in "
      "these numbers.";
  return text;
}

std::string ReplayJson(const std::vector<NamedReport>& reports) {
  json all = json::array();
  for (const NamedReport& named : reports) all.push_back(Json(named));
  return json{{"replays", all}}.dump();
}

}  // namespace sluice::cli
