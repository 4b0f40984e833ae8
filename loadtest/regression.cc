#include "loadtest/regression.h"

#include <fstream>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

std::string ValueOr(const std::map<std::string, std::string>& map, const std::string& key) {
  const auto it = map.find(key);
  return it == map.end() ? "" : it->second;
}

CheckResult Judge(const std::string& metric, const std::string& what, const Estimate& ratio, double tolerance) {
  const bool more = MoreIsBetter(metric);
  const double limit = more ? 1 / (1 + tolerance) : 1 + tolerance;
  CheckResult check{
      .text = fmt::format("{} {} {} {:.3f}", metric, what, more ? "≥" : "≤", limit), .value = ratio, .limit = limit};
  if (!ratio.known()) {
    check.note = "not measured on both sides";
    return check;
  }
  if (!ratio.has_interval()) {
    check.note = "no interval: at least two blocks on both sides are needed";
    return check;
  }
  // As a slowdown: above 1 is worse.
  const double slowdown = more ? 1 / ratio.value : ratio.value;
  const double best = more ? 1 / ratio.high : ratio.low, worst = more ? 1 / ratio.low : ratio.high;
  const bool significant = best > 1;
  if (slowdown > 1 + tolerance && significant) {
    check.verdict = Verdict::kMissed;
    check.note = fmt::format("worse by {:.1f} %", 100 * (slowdown - 1));
  } else if (worst > 1 + 2 * tolerance) {
    check.note = "too noisy to say: repeat with more or longer blocks";
  } else {
    check.verdict = worst <= 1 + tolerance ? Verdict::kBeaten : Verdict::kReached;
  }
  return check;
}

}  // namespace

Baseline BaselineOf(const Summary& summary) {
  Baseline b{.fingerprint = ValueOr(summary.environment, "fingerprint"),
             .scenario = summary.scenario,
             .model_sha256 = ValueOr(summary.environment, "model_sha256"),
             .commit = ValueOr(summary.environment, "commit"),
             .quick = summary.quick};
  if (!summary.cells.empty()) b.per_block = summary.cells.front().per_block;
  return b;
}

std::string ToJson(const Baseline& b) {
  return nlohmann::json{{"type", "sluice-bench baseline"}, {"fingerprint", b.fingerprint}, {"scenario", b.scenario},
                        {"model_sha256", b.model_sha256},  {"commit", b.commit},           {"quick", b.quick},
                        {"per_block", b.per_block}}
             .dump(1) +
         "\n";
}

absl::StatusOr<Baseline> ReadBaseline(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError("there is no baseline " + path + "; --save-baseline makes one");
  try {
    const auto json = nlohmann::json::parse(file);
    return Baseline{json.at("fingerprint"), json.at("scenario"), json.at("model_sha256"),
                    json.at("commit"),      json.at("quick"),    json.at("per_block")};
  } catch (const nlohmann::json::exception& e) {
    return absl::InvalidArgumentError(fmt::format("{} is no baseline of sluice-bench: {}", path, e.what()));
  }
}

void JudgeAgainst(const Baseline& baseline, const Scenario& scenario, Summary& summary) {
  const Baseline now = BaselineOf(summary);
  const auto same = [&](const char* what, const std::string& a, const std::string& b) {
    if (a != b) summary.invalid.push_back(fmt::format("the baseline has another {}: '{}', here '{}'", what, a, b));
  };
  same("machine", baseline.fingerprint, now.fingerprint);
  same("scenario", baseline.scenario, now.scenario);
  same("model", baseline.model_sha256, now.model_sha256);
  same("length", baseline.quick ? "quick" : "full", now.quick ? "quick" : "full");
  for (const std::string& metric : scenario.compare) {
    const auto a = now.per_block.find(metric), b = baseline.per_block.find(metric);
    const bool both = a != now.per_block.end() && b != baseline.per_block.end();
    summary.checks.push_back(Judge(metric, "against the baseline of " + baseline.commit,
                                   both ? UnpairedRatio(a->second, b->second) : Estimate{}, scenario.tolerance));
  }
}

void JudgeArms(const Scenario& scenario, Summary& summary) {
  if (summary.arms.size() != 2) return;
  const Cell *old_cell = summary.Find(summary.arms[0], 0), *new_cell = summary.Find(summary.arms[1], 0);
  if (old_cell == nullptr || new_cell == nullptr) return;  // CheckValidity has said so
  for (const std::string& metric : scenario.compare) {
    const auto a = new_cell->per_block.find(metric), b = old_cell->per_block.find(metric);
    const bool both = a != new_cell->per_block.end() && b != old_cell->per_block.end();
    summary.checks.push_back(Judge(metric, fmt::format("{} / {}", new_cell->arm, old_cell->arm),
                                   both ? PairedRatio(a->second, b->second) : Estimate{}, scenario.tolerance));
  }
}

}  // namespace sluice::loadtest
