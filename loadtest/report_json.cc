#include "loadtest/report_json.h"

#include <cmath>

#include "base/strings.h"

namespace sluice::loadtest {
namespace {

using Json = nlohmann::json;

Json Value(const Cell& cell);  // the templates below need to know it

Json Value(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json Value(int64_t value) { return value; }
Json Value(const std::string& text) { return ReplaceInvalidUtf8(text); }
Json Value(const Estimate& e) { return {{"value", Value(e.value)}, {"low", Value(e.low)}, {"high", Value(e.high)}}; }
Json Value(const std::pair<double, double>& point) { return Json::array({Value(point.first), Value(point.second)}); }

Json Value(const Latency& latency) {
  Json json = {{"count", latency.count},
               {"mean", Value(latency.mean)},
               {"stddev", Value(latency.stddev)},
               {"min", Value(latency.min)},
               {"max", Value(latency.max)}};
  for (size_t i = 0; i < kPercentiles.size(); ++i) {
    json["p" + std::to_string(kPercentiles[i])] = Value(latency.percentiles[i]);
  }
  return json;
}

Json Value(const Second& s) {
  return {{"at_s", Value(s.at_s)},
          {"started", s.started},
          {"completed", s.completed},
          {"failed", s.failed},
          {"in_flight", s.in_flight},
          {"output_tokens", s.output_tokens},
          {"ttft_p95_ms", Value(s.ttft_p95_ms)},
          {"cpu_percent", Value(s.cpu_percent)},
          {"rss_mb", Value(s.rss_mb)}};
}

Json Value(const FaultEvent& f) {
  return {{"arm", Value(f.arm)}, {"action", Value(f.action)}, {"start_ns", f.start_ns}, {"end_ns", f.end_ns}};
}

Json Value(const CheckResult& c) {
  return {{"text", Value(c.text)},
          {"value", Value(c.value)},
          {"limit", Value(c.limit)},
          {"verdict", VerdictName(c.verdict)},
          {"note", Value(c.note)}};
}

Json Value(const Comparison& c) {
  return {{"metric", Value(c.metric)}, {"arm", Value(c.arm)},     {"against", Value(c.against)},
          {"value", Value(c.value)},   {"ratio", Value(c.ratio)}, {"against_value", Value(c.against_value)},
          {"winner", Value(c.winner)}};
}

template <class T>
Json List(const std::vector<T>& items) {
  Json json = Json::array();
  for (const T& item : items) json.push_back(Value(item));
  return json;
}

Json Value(const ClassCell& c) {
  return {{"requests", c.requests},
          {"succeeded", c.succeeded},
          {"failed", c.failed},
          {"goodput_share", Value(c.goodput_share)},
          {"ttft_p50_ms", Value(c.ttft_p50)},
          {"ttft_p95_ms", Value(c.ttft_p95)}};
}

template <class T>
Json Object(const std::map<std::string, T>& items) {
  Json json = Json::object();
  for (const auto& [key, item] : items) json[ReplaceInvalidUtf8(key)] = Value(item);
  return json;
}

template <class T>
Json ObjectOfLists(const std::map<std::string, std::vector<T>>& items) {
  Json json = Json::object();
  for (const auto& [key, list] : items) json[ReplaceInvalidUtf8(key)] = List(list);
  return json;
}

Json Value(const Cell& c) {
  Json json = {{"arm", Value(c.arm)},
               {"level", c.level},
               {"offered", Value(c.offered)},
               {"open_loop", c.open_loop},
               {"blocks", c.blocks},
               {"duration_s", Value(c.duration_s)},
               {"requests", c.requests},
               {"succeeded", c.succeeded},
               {"failed", c.failed},
               {"cancelled", c.cancelled},
               {"errors", Object(c.errors)},
               {"error_examples", Object(c.error_examples)},
               {"error_rate", Value(c.error_rate)},
               {"pipelines", Object(c.pipelines)},
               {"classes", Object(c.classes)},
               {"latencies", Object(c.latencies)},
               {"prompt_tokens", c.prompt_tokens},
               {"cached_tokens", c.cached_tokens},
               {"output_tokens", c.output_tokens},
               {"peak_concurrency", c.peak_concurrency},
               {"failure_mode", Value(c.failure_mode)},
               {"per_block", ObjectOfLists(c.per_block)},
               {"ttft_ecdf", List(c.ttft_ecdf)}};
  const std::pair<const char*, double> scalars[] = {
      {"requests_per_s", c.requests_per_s},
      {"output_tokens_per_s", c.output_tokens_per_s},
      {"total_tokens_per_s", c.total_tokens_per_s},
      {"goodput_per_s", c.goodput_per_s},
      {"goodput_share", c.goodput_share},
      {"cpu_percent", c.cpu_percent},
      {"cpu_share", c.cpu_share},
      {"rss_peak_mb", c.rss_peak_mb},
      {"generator_cpu_percent", c.generator_cpu_percent},
      {"lag_p50_ms", c.lag_p50_ms},
      {"lag_p99_ms", c.lag_p99_ms},
  };
  for (const auto& [name, value] : scalars) json[name] = Value(value);
  return json;
}

}  // namespace

Json SummaryJson(const Summary& s) {
  return {{"format", "sluice-bench-summary"},
          {"version", 1},
          {"exit_code", s.exit_code()},
          {"environment", Object(s.environment)},
          {"scenario", Value(s.scenario)},
          {"description", Value(s.description)},
          {"kind", Value(s.kind)},
          {"seed", s.seed},
          {"quick", s.quick},
          {"partial", s.partial},
          {"ended", Value(s.ended)},
          {"arms", List(s.arms)},
          {"cells", List(s.cells)},
          {"comparisons", List(s.comparisons)},
          {"checks", List(s.checks)},
          {"invalid", List(s.invalid)},
          {"timeline", ObjectOfLists(s.timeline)},
          {"faults", List(s.faults)},
          {"notes", List(s.notes)}};
}

}  // namespace sluice::loadtest
