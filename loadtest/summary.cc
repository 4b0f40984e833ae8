#include "loadtest/summary.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "loadtest/cells.h"
#include "loadtest/regression.h"
#include "loadtest/stress.h"

namespace sluice::loadtest {
namespace {

constexpr int kPairsWanted = 5;        // DESIGN §8
constexpr double kWidest = 2;          // an interval of a ratio that "holds" everything reaches nothing
constexpr double kEqualWithin = 0.03;  // DESIGN §8: within 3 % is equal

Comparison Compare(const Cell& cell, const Cell& against, const std::string& metric) {
  Comparison c{.metric = metric, .arm = cell.arm, .against = against.arm};
  c.value = ScalarOf(cell, metric).value;
  c.against_value = ScalarOf(against, metric).value;
  const auto a = cell.per_block.find(metric), b = against.per_block.find(metric);
  if (a == cell.per_block.end() || b == against.per_block.end()) return c;
  c.ratio = PairedRatio(a->second, b->second);
  if (!c.ratio.has_interval()) return c;
  const bool apart = c.ratio.low > 1 || c.ratio.high < 1;
  if (!apart || std::abs(c.ratio.value - 1) < kEqualWithin) return c;
  c.winner = (c.ratio.value > 1) == MoreIsBetter(metric) ? c.arm : c.against;
  return c;
}

// The number that a check judges: a scalar, or the ratio of two arms.
Estimate Judged(const CheckSpec& check, const std::string& arm, const Summary& summary, int level, std::string* why) {
  const Cell* cell = summary.Find(arm, level);
  if (cell == nullptr) {
    *why = "nothing was measured on " + arm;
    return {};
  }
  if (check.versus.empty()) {
    const Estimate value = ScalarOf(*cell, check.metric);
    if (!value.known()) *why = check.metric + " was not measured";
    return value;
  }
  const Cell* other = summary.Find(check.versus, level);
  if (other == nullptr) {
    *why = "nothing was measured on " + check.versus;
    return {};
  }
  const Comparison c = Compare(*cell, *other, check.metric);
  const int pairs = std::min(cell->blocks, other->blocks);
  if (pairs < kPairsWanted || c.ratio.high > kWidest * c.ratio.low) {
    *why =
        fmt::format("too few or too noisy pairs ({}) for an interval that proves anything: judged by the point", pairs);
  }
  if (!c.ratio.known()) *why = check.metric + " was not measured on both";
  return c.ratio;
}

CheckResult Judge(const CheckSpec& check, const std::string& arm, const Summary& summary, int level) {
  CheckResult result;
  const bool at_most = check.has_at_most;
  result.limit = at_most ? check.at_most : check.at_least;
  result.text = fmt::format("{} {}{} {} {:g}", arm, check.metric,
                            check.versus.empty() ? "" : fmt::format(", ratio to {},", check.versus),
                            at_most ? "≤" : "≥", result.limit);
  result.value = Judged(check, arm, summary, level, &result.note);
  if (!result.value.known()) return result;
  const auto verdict = [&](double limit) {
    Estimate v = result.value;
    if (!result.note.empty()) v.low = v.high = kNan;
    const bool point = at_most ? v.value <= limit : v.value >= limit;
    if (!v.has_interval()) return point ? Verdict::kReached : Verdict::kMissed;
    if (at_most ? v.high <= limit : v.low >= limit) return Verdict::kBeaten;
    return (at_most ? v.low <= limit : v.high >= limit) ? Verdict::kReached : Verdict::kMissed;
  };
  result.verdict = verdict(result.limit);
  if (check.has_stretch) {
    result.note += fmt::format("{}stretch {:g}: {}", result.note.empty() ? "" : "; ", check.stretch,
                               VerdictName(verdict(check.stretch)));
  }
  return result;
}

void CheckPipelines(const Scenario& scenario, Summary& summary) {
  for (const EngineSpec& engine : scenario.engines) {
    if (engine.expect_pipeline.empty()) continue;
    for (const Cell& cell : summary.cells) {
      if (cell.arm != engine.name) continue;
      for (const auto& [pipeline, count] : cell.pipelines) {
        if (pipeline == engine.expect_pipeline) continue;
        summary.invalid.push_back(fmt::format("{}: {} of {} answers were served by pipeline '{}' instead of '{}'",
                                              cell.arm, count, cell.succeeded, pipeline, engine.expect_pipeline));
      }
    }
  }
}

void CheckValidity(const Run& run, const Scenario& scenario, Summary& summary) {
  for (const BlockSample& b : run.blocks) {
    const std::string where = fmt::format("{}, block {}, level {}", b.arm, b.block, b.level);
    if (!b.stopped.empty()) {
      const bool expected = scenario.kind == Scenario::Kind::kStress;
      (expected ? summary.notes : summary.invalid).push_back(fmt::format("{} ended early: {}", where, b.stopped));
    }
    if (b.limited.empty()) continue;
    if (scenario.kind == Scenario::Kind::kStress) {
      summary.notes.push_back(fmt::format("client-limited at {}: {}", where, b.limited));
    } else {
      summary.invalid.push_back(fmt::format("client-limited: {}: {}", where, b.limited));
    }
  }
  CheckPipelines(scenario, summary);
  for (const EngineSpec& engine : scenario.engines) {
    if (summary.Find(engine.name, 0) == nullptr) summary.invalid.push_back("nothing was measured on " + engine.name);
  }
  if (summary.partial) {
    summary.invalid.push_back(summary.ended.empty() ? "the run did not end" : "the run ended early: " + summary.ended);
  }
}

// Median time from the end of each fault to the first success that was sent after it.
void NoteRecovery(const Run& run, Summary& summary) {
  for (const FaultEvent& fault : run.faults) {
    int64_t first = -1, lost = 0;
    for (const Record& r : run.records) {
      if (r.arm != fault.arm) continue;
      if (r.ok() && r.sent_ns >= fault.start_ns && r.done_ns >= fault.end_ns && (first < 0 || r.done_ns < first)) {
        first = r.done_ns;
      }
      if (!r.ok() && r.done_ns >= fault.start_ns && r.sent_ns <= fault.end_ns) ++lost;
    }
    summary.notes.push_back(
        first < 0
            ? fmt::format("{} after {}: no request succeeded any more; {} failed", fault.arm, fault.action, lost)
            : fmt::format("{} after {}: first success {:.0f} ms after the fault ended; {} requests failed meanwhile",
                          fault.arm, fault.action, 1e-6 * static_cast<double>(first - fault.end_ns), lost));
  }
}

void AddComparisons(const Scenario& scenario, Summary& summary) {
  if (summary.arms.size() < 2 || summary.cells.empty()) return;
  for (const std::string& metric : scenario.compare) {
    for (size_t i = 1; i < summary.arms.size(); ++i) {
      const Cell *cell = summary.Find(summary.arms[i], 0), *first = summary.Find(summary.arms[0], 0);
      if (cell != nullptr && first != nullptr) summary.comparisons.push_back(Compare(*cell, *first, metric));
    }
  }
}

}  // namespace

const char* VerdictName(Verdict v) {
  switch (v) {
    case Verdict::kBeaten:
      return "beaten";
    case Verdict::kReached:
      return "reached";
    case Verdict::kMissed:
      return "missed";
    case Verdict::kInvalid:
      break;
  }
  return "invalid";
}

const Cell* Summary::Find(const std::string& arm, int level) const {
  for (const Cell& cell : cells) {
    if (cell.arm == arm && cell.level == level) return &cell;
  }
  return nullptr;
}

int Summary::exit_code() const {
  const auto any = [this](Verdict v) {
    return std::any_of(checks.begin(), checks.end(), [v](const CheckResult& c) { return c.verdict == v; });
  };
  if (!invalid.empty() || any(Verdict::kInvalid)) return 2;
  return any(Verdict::kMissed) ? 1 : 0;
}

Summary Summarize(const Run& run, const Scenario& scenario) {
  Summary summary;
  summary.environment = run.environment;
  summary.scenario = scenario.name;
  summary.description = scenario.description;
  summary.kind = KindName(scenario.kind);
  summary.seed = scenario.seed;
  summary.quick = run.quick;
  summary.partial = run.partial;
  summary.ended = run.ended;
  summary.faults = run.faults;
  for (const EngineSpec& engine : scenario.engines) summary.arms.push_back(engine.name);
  summary.cells = MakeCells(run, scenario);
  summary.timeline = MakeTimeline(run);
  CheckValidity(run, scenario, summary);
  NoteRecovery(run, summary);
  if (scenario.kind == Scenario::Kind::kStress) JudgeStress(run, scenario, summary);
  if (scenario.kind == Scenario::Kind::kSoak) JudgeDrift(run, scenario, summary);
  AddComparisons(scenario, summary);
  if (scenario.kind == Scenario::Kind::kRegression) JudgeArms(scenario, summary);
  for (const CheckSpec& check : scenario.checks) {
    const std::vector<std::string> arms = check.arm.empty() ? summary.arms : std::vector<std::string>{check.arm};
    for (const std::string& arm : arms) {
      if (arm != check.versus) summary.checks.push_back(Judge(check, arm, summary, 0));
    }
  }
  return summary;
}

}  // namespace sluice::loadtest
