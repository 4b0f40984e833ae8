#include "config/rollout_file.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/status.h"
#include "config/lists.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "flags/flag.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

using rollout::RolloutSpec;
using rollout::Stage;

// Those that every request asks for: of others nobody knows what they do to a request.
constexpr std::array<std::string_view, 3> kFlags = {flags::kPhase5, flags::kTtftPipeline, flags::kQosPolicy};
constexpr std::string_view kFlagsAllowed = "phase5, ttft_pipeline, qos_policy";
constexpr int64_t kWeekMs = 7 * 86'400'000LL;

void ReadShare(Section& section, std::string_view key, double min, double max, double* out) {
  constexpr double kPercent = 100;
  double percent = 0;
  if (section.Number(key, min, max, &percent) != Source::kDefault) *out = percent / kPercent;
}

void ReadStage(Section& section, Stage* out) {
  section.Require("percent", "0.01 to 100");
  section.PercentAsBps("percent", &out->bps);
  section.Millis("dwell_ms", 0, kWeekMs, &out->dwell);
  section.Integer("min_samples", 1, 1'000'000'000, &out->min_samples);
}

void ReadRollback(Section section, RolloutSpec* out) {
  section.Choice<rollout::RollbackStyle>(
      "style", {{"instant", rollout::RollbackStyle::kInstant}, {"gradual", rollout::RollbackStyle::kGradual}},
      &out->rollback);
  section.Millis("interval_ms", 100, kWeekMs, &out->rollback_interval);
  section.Millis("cool_down_ms", 0, kWeekMs, &out->cool_down);
  section.Choice<rollout::AfterRollback>(
      "then", {{"stay", rollout::AfterRollback::kStay}, {"retry", rollout::AfterRollback::kRetry}},
      &out->after_rollback);
  section.Integer("max_attempts", 1, 100, &out->max_attempts);
}

void ReadAnalysis(Section section, rollout::AnalysisOptions* out) {
  section.Choice<rollout::Mode>(
      "mode", {{"sequential", rollout::Mode::kSequential}, {"threshold", rollout::Mode::kThreshold}}, &out->mode);
  section.Number("alpha", 1e-9, 0.5, &out->alpha);
  section.Number("beta", 1e-6, 0.5, &out->beta);
  section.Number("max_error_ratio", 1.1, 100, &out->max_error_ratio);
  ReadShare(section, "allowed_error_percent", 0.0001, 50, &out->allowed_error_rate);
  section.Number("max_ttft_p95_ratio", 1.2, 100, &out->max_ttft_ratio);
  section.Number("max_latency_p95_ratio", 1.2, 100, &out->max_latency_ratio);
  ReadShare(section, "max_memory_growth_percent_per_hour", 0.1, 100'000, &out->max_growth_per_hour);
  section.Millis("memory_span_ms", 1000, kWeekMs, &out->memory_span);
  section.Number("min_memory_growth_bytes", 0, 1e15, &out->min_growth_bytes);
  ReadShare(section, "max_crash_percent", 0.0001, 10, &out->max_crash_rate);
  section.Millis("crash_span_ms", 1000, kWeekMs, &out->crash_span);
  section.Integer("threshold_samples", 1, 1'000'000'000, &out->threshold_samples);
}

void ReadRollout(Section& section, RolloutSpec* out) {
  section.Require("flag", kFlagsAllowed);
  std::vector<std::pair<std::string, std::string>> flags;
  for (const std::string_view flag : kFlags) flags.emplace_back(flag, flag);
  section.Choice<std::string>("flag", flags, &out->flag);
  if (section.Has("stages")) out->stages.clear();
  section.Each("stages", rollout::kMaxStages, [&](Section& item) { ReadStage(item, &out->stages.emplace_back()); });
  section.Choice<rollout::Promotion>(
      "promotion", {{"automatic", rollout::Promotion::kAutomatic}, {"manual", rollout::Promotion::kManual}},
      &out->promotion);
  section.PercentAsBps("holdback_percent", &out->holdback_bps);
  ReadAnalysis(section.Map("analysis"), &out->analysis);
  section.Integer("failures_in_a_row", 0, 1'000'000, &out->failures_in_a_row);
  ReadRollback(section.Map("rollback"), out);
  section.Millis("decay_after_ms", 0, kWeekMs, &out->decay_after);
  section.Names("alerts", rollout::kMaxRollouts, &out->alerts);
}

// Rules that span keys, judged once each key is fit.
void CheckWhole(const YamlNode& root, const RolloutFile& out, Faults& faults) {
  if (!faults.empty()) return;
  int line = root.line;
  const YamlNode* const list = MemberOf(root, "rollouts", &line);
  for (size_t i = 0; i < out.rollouts.size(); ++i) {
    const RolloutSpec& spec = out.rollouts[i];
    const std::string path = fmt::format("rollouts[{}]", i);
    if (const absl::Status fit = CheckSpec(spec); !fit.ok()) {
      faults.Add(list->items[i].line, path, std::string(fit.message()),
                 "stages that rise to at most 100 %, a hold-back of at most 5 %");
    }
  }
  CheckUnique(
      root, "rollouts", out.rollouts, [](const RolloutSpec& spec) { return "a rollout of " + spec.flag; }, faults);
}

}  // namespace

absl::StatusOr<RolloutFile> LoadRolloutFile(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode file, LoadYamlFile(path));
  Faults faults(path);
  RolloutFile out;
  if (file.kind == YamlNode::Kind::kNull) faults.Add(0, "", "is empty", "rollouts, or {} for none");
  {
    Section root(&file, file.line, "", faults, nullptr);
    root.Millis("window_ms", 100, 3'600'000, &out.window);
    root.Each("rollouts", rollout::kMaxRollouts,
              [&](Section& item) { ReadRollout(item, &out.rollouts.emplace_back()); });
  }
  CheckWhole(file, out, faults);
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return out;
}

}  // namespace sluice::config
