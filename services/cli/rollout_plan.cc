#include "services/cli/rollout_plan.h"

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "config/rollout_file.h"
#include "config/values.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "rollout/analysis/dwell_plan.h"
#include "services/cli/client.h"
#include "sluice/v1/rollout.grpc.pb.h"

namespace sluice::cli {
namespace {

namespace pb = ::sluice::v1;

int Usage(const std::string& text) {
  std::fprintf(stderr, "sluicectl rollout plan: %s; see sluicectl rollout --help\n", text.c_str());
  return kUsage;
}

bool Read(const Args& args, const char* name, double min, double max, double scale, double* out) {
  const std::string text = args.Get(name);
  if (text.empty()) return true;
  const auto parsed = config::ParseNumber(text, min, max);
  if (parsed.value) *out = *parsed.value * scale;
  if (!parsed.value) Usage(fmt::format("{}: {}; allowed: {:g} to {:g}", name, parsed.what, min, max));
  return parsed.value.has_value();
}

struct Plan {
  rollout::RolloutSpec spec;  // stages, hold-back and analysis
  rollout::Traffic traffic;
  std::string source = "options and defaults";
};

// When the percentage that is served now began to be.
int64_t StageSince(const pb::Rollout& r) {
  int64_t since = r.since_ms();
  for (int i = r.history_size() - 1; i >= 0 && r.history(i).percent() == r.percent(); --i) {
    since = r.history(i).when_ms();
  }
  return since;
}

// What the server counts of the flag's arms in the stage that runs.
void TakeTraffic(const pb::Rollout& r, int64_t now_ms, Plan* plan) {
  const double seconds = static_cast<double>(now_ms - StageSince(r)) / 1000;
  const auto events = static_cast<double>(r.canary_events() + r.baseline_events());
  if (r.percent() <= 0 || events <= 0 || seconds <= 0) {
    plan->source = fmt::format("the server counts nothing of {} now; options and defaults", r.flag());
    return;
  }
  plan->traffic.events_per_second = events / seconds;
  for (const pb::RolloutCheck& check : r.checks()) {
    if (check.name() == "error_rate" && r.baseline_events() > 0) plan->traffic.base_error = check.baseline();
  }
  plan->source = fmt::format("counted by the server in {:.0f} s of this stage", seconds);
}

void TakeFromServer(const Args& args, const std::string& flag, Plan* plan) {
  const auto client = Client::Connect(args);
  grpc::ClientContext context;
  pb::ListRolloutsResponse list;
  grpc::Status status(grpc::StatusCode::INVALID_ARGUMENT, std::string(client.status().message()));
  if (client.ok()) {
    client->Prepare(context);
    status = pb::RolloutService::NewStub(client->channel())->ListRollouts(&context, {}, &list);
  }
  plan->source = fmt::format("no rollout of {} on the server; options and defaults", flag);
  if (!status.ok()) plan->source = "the server does not answer; options and defaults";
  for (const pb::Rollout& r : list.rollouts()) {
    if (r.flag() != flag) continue;
    plan->spec.stages.clear();
    for (const pb::RolloutStage& stage : r.stages()) {
      plan->spec.stages.push_back({.bps = static_cast<uint32_t>(std::lround(stage.percent() * 100)),
                                   .dwell = FromMillis(stage.dwell_ms()),
                                   .min_samples = stage.min_samples()});
    }
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    TakeTraffic(r, std::chrono::duration_cast<std::chrono::milliseconds>(now).count(), plan);
  }
}

// False: said why.
bool TakeFromFile(const std::string& path, const std::string& flag, Plan* plan) {
  const auto file = config::LoadRolloutFile(path);
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", std::string(file.status().message()).c_str());
    return false;
  }
  plan->traffic.window = file->window;
  for (const rollout::RolloutSpec& spec : file->rollouts) {
    if (!flag.empty() && spec.flag != flag) continue;
    plan->spec = spec;
    return true;
  }
  Usage(fmt::format("{} defines no rollout{}", path, flag.empty() ? "" : " of " + flag));
  return false;
}

struct Row {
  uint32_t bps = 0;
  Duration dwell{};
  std::vector<rollout::Need> needs;  // as kColumns
};
constexpr std::array<const char*, 5> kColumns = {"errors_2x", "errors_5x", "latency_1.5x", "latency_2x", "pass"};

Row PlanStage(const Plan& plan, size_t stage) {
  rollout::AnalysisOptions options = plan.spec.analysis;
  options.alpha /= 2;  // the leader's half
  const uint32_t bps = plan.spec.Share(stage);
  const rollout::Traffic& traffic = plan.traffic;
  return {.bps = bps,
          .dwell = plan.spec.stages[stage].dwell,
          .needs = {ToSeeErrors(options, traffic, bps, 2), ToSeeErrors(options, traffic, bps, 5),
                    ToSeeLatency(options, traffic, bps, 1.5), ToSeeLatency(options, traffic, bps, 2),
                    ToPass(options, traffic, bps)}};
}

std::string Cell(const rollout::Need& need) {
  if (!std::isfinite(need.seconds)) return "never";
  if (need.seconds < 600) return fmt::format("{:.0f} s ({:.0f})", need.seconds, need.canary_events);
  return fmt::format("{:.0f} min ({:.0f})", std::ceil(need.seconds / 60), need.canary_events);
}

void PrintTable(const Plan& plan, const std::vector<Row>& rows) {
  const rollout::Traffic& t = plan.traffic;
  std::puts(fmt::format("{:.3g} events/s, base error {:.3g} %, latency sigma {:g}, alpha {:g}, windows of {:g} s: {}",
                        t.events_per_second, t.base_error * 100, t.sigma, plan.spec.analysis.alpha, ToSeconds(t.window),
                        plan.source)
                .c_str());
  std::string head = fmt::format("{:>8} {:>9}", "share", "dwell");
  for (const char* column : kColumns) head += fmt::format(" {:>18}", column);
  std::puts(head.c_str());
  for (const Row& row : rows) {
    std::string line =
        fmt::format("{:>8} {:>9}", fmt::format("{:g} %", row.bps / 100.0), fmt::format("{:g} s", ToSeconds(row.dwell)));
    for (const rollout::Need& need : row.needs) line += fmt::format(" {:>18}", Cell(need));
    if (row.needs.back().seconds > ToSeconds(row.dwell)) line += "  *";
    std::puts(line.c_str());
  }
  std::puts("(...): events of the canary.  *: after its dwell the stage waits, inconclusive, until it can pass.");
}

std::string Json(const Plan& plan, const std::vector<Row>& rows) {
  nlohmann::json stages = nlohmann::json::array();
  for (const Row& row : rows) {
    nlohmann::json stage = {{"percent", row.bps / 100.0}, {"dwell_s", ToSeconds(row.dwell)}};
    for (size_t c = 0; c < kColumns.size(); ++c) {
      const rollout::Need& need = row.needs[c];
      stage[kColumns[c]] = nullptr;  // never
      if (std::isfinite(need.seconds)) {
        stage[kColumns[c]] = {{"seconds", need.seconds}, {"canary_events", need.canary_events}};
      }
    }
    stages.push_back(std::move(stage));
  }
  return nlohmann::json({{"source", plan.source},
                         {"events_per_second", plan.traffic.events_per_second},
                         {"base_error", plan.traffic.base_error},
                         {"stages", std::move(stages)}})
      .dump();
}

}  // namespace

int RolloutPlan(const Args& args) {
  const std::string flag = args.operands().size() > 1 ? args.operands()[1] : "";
  Plan plan;
  if (!flag.empty()) TakeFromServer(args, flag, &plan);
  if (const std::string path = args.Get("--file"); !path.empty() && !TakeFromFile(path, flag, &plan)) return kUsage;
  double share = 0;
  if (!Read(args, "--rate", 0.001, 1e6, 1, &plan.traffic.events_per_second) ||
      !Read(args, "--base-error", 0, 50, 0.01, &plan.traffic.base_error) ||
      !Read(args, "--sigma", 0.01, 3, 1, &plan.traffic.sigma) ||
      !Read(args, "--alpha", 1e-9, 0.5, 1, &plan.spec.analysis.alpha) ||
      !Read(args, "--share", 0.01, 100, 100, &share)) {
    return kUsage;
  }
  if (share > 0) {
    plan.spec.stages = {{.bps = static_cast<uint32_t>(std::lround(share))}};
    plan.spec.holdback_bps = 0;
  }
  if (plan.spec.analysis.mode == rollout::Mode::kThreshold) {
    return Usage("mode threshold decides at threshold_samples, whatever they show; there is nothing to plan");
  }
  std::vector<Row> rows;
  for (size_t i = 0; i < plan.spec.stages.size(); ++i) rows.push_back(PlanStage(plan, i));
  if (args.Has("--json")) {
    std::puts(Json(plan, rows).c_str());
  } else {
    PrintTable(plan, rows);
  }
  return kOk;
}

}  // namespace sluice::cli
