#include "rollout/evidence.h"

#include <cmath>
#include <utility>

#include "nlohmann/json.hpp"
#include "rollout/records.h"

namespace sluice::rollout {
namespace {

using nlohmann::json;

json Number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

json Numbers(const std::vector<double>& values) {
  json list = json::array();
  for (const double value : values) list.push_back(Number(value));
  return list;
}

int64_t Millis(WallTime t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
}

double Percent(uint32_t bps) { return bps / 100.0; }

json ChecksOf(const Judgement& judgement) {
  json checks = json::array();
  for (const Check& c : judgement.checks) {
    checks.push_back({{"name", c.name},
                      {"verdict", VerdictName(c.verdict)},
                      {"canary", Number(c.canary)},
                      {"baseline", Number(c.baseline)},
                      {"ratio", Number(c.ratio)},
                      {"low", Number(c.low)},
                      {"high", Number(c.high)},
                      {"e_value", Number(c.e_value)},
                      {"e_limit", Number(c.e_limit)},
                      {"pass_e_value", Number(c.pass_e_value)},
                      {"pass_limit", Number(c.pass_limit)},
                      {"samples", c.samples}});
  }
  return checks;
}

json ConfigOf(const RolloutSpec& spec) {
  json stages = json::array();
  for (const Stage& stage : spec.stages) {
    stages.push_back(
        {{"percent", Percent(stage.bps)}, {"dwell_ms", ToMillis(stage.dwell)}, {"min_samples", stage.min_samples}});
  }
  const AnalysisOptions& a = spec.analysis;
  return {{"stages", std::move(stages)},
          {"promotion", spec.promotion == Promotion::kAutomatic ? "automatic" : "manual"},
          {"holdback_percent", Percent(spec.holdback_bps)},
          {"mode", a.mode == Mode::kSequential ? "sequential" : "threshold"},
          {"alpha", a.alpha},
          {"beta", a.beta},
          {"max_error_ratio", a.max_error_ratio},
          {"allowed_error_rate", a.allowed_error_rate},
          {"max_ttft_p95_ratio", a.max_ttft_ratio},
          {"max_latency_p95_ratio", a.max_latency_ratio},
          {"max_memory_growth_per_hour", a.max_growth_per_hour},
          {"max_crash_rate", a.max_crash_rate},
          {"failures_in_a_row", spec.failures_in_a_row}};
}

json SeriesOf(const EvidenceSeries& series, const Judgement& judgement) {
  json names = json::array(), points = json::array();
  for (const Check& c : judgement.checks) names.push_back(c.name);
  for (const EvidenceSeries::Point& p : series.points()) {
    points.push_back({{"when_ms", Millis(p.when)},
                      {"percent", Percent(p.bps)},
                      {"e_values", Numbers(p.e_values)},
                      {"ratios", Numbers(p.ratios)}});
  }
  return {{"checks", std::move(names)}, {"points", std::move(points)}};
}

}  // namespace

void EvidenceSeries::Add(WallTime when, uint32_t bps, const Judgement& judgement) {
  Point& point = points_.emplace_back(Point{.when = when, .bps = bps, .e_values = {}, .ratios = {}});
  for (const Check& check : judgement.checks) {
    point.e_values.push_back(check.e_value);
    point.ratios.push_back(check.ratio);
  }
  if (points_.size() <= kMaxPoints) return;
  std::vector<Point> half;
  for (size_t i = 0; i < points_.size(); i += 2) half.push_back(std::move(points_[i]));
  points_ = std::move(half);
}

std::string MakeEvidence(const EvidenceParts& parts) {
  const RolloutState& after = parts.after;
  return json({{"flag", after.flag},
               {"attempt", after.attempt},
               {"epoch", after.epoch},
               {"when_ms", Millis(after.since)},
               {"from", PhaseName(parts.before.phase)},
               {"to", PhaseName(after.phase)},
               {"percent_before", Percent(parts.before.bps)},
               {"percent_after", Percent(after.bps)},
               {"cause", after.cause},
               {"by_replica", parts.replica},
               {"canary_events", parts.seen.canary_events},
               {"baseline_events", parts.seen.baseline_events},
               {"checks", ChecksOf(parts.judgement)},
               {"series", SeriesOf(parts.series, parts.judgement)},
               {"config", ConfigOf(parts.spec)},
               {"examples", parts.examples}})
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

void ForgetOld(state::StateStore& store, const RolloutState& now) {
  constexpr size_t kKeptEvidence = 20;
  if (const auto kept = store.List(EvidencePrefix(now.flag)); kept.ok()) {
    for (size_t i = 0; i + kKeptEvidence < kept->entries.size(); ++i) {
      (void)store.Delete(kept->entries[i].key, kept->entries[i].revision);
    }
  }
  if (const auto kept = store.List(TripPrefix(now.flag)); kept.ok()) {
    for (const state::Entry& entry : kept->entries) {
      const auto attempt = AttemptOfTrip(entry.key, now.flag);
      if (attempt && *attempt < now.attempt) (void)store.Delete(entry.key, entry.revision);
    }
  }
}

}  // namespace sluice::rollout
