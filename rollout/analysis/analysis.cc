#include "rollout/analysis/analysis.h"

#include <cmath>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "rollout/analysis/hypotheses.h"

namespace sluice::rollout {
namespace {

using nlohmann::json;

constexpr size_t kCanary = static_cast<size_t>(Arm::kCanary), kBaseline = static_cast<size_t>(Arm::kBaseline);
constexpr size_t kMaxReplicas = 256;
constexpr size_t kMaxCrashTimes = 64;
// Odds of the canary's share against what it should be.
constexpr std::array<double, 4> kOtherShares = {0.5, 0.8, 1.25, 2};

void Merge(const Strata& from, Strata* to) {
  for (size_t s = 0; s < kStrata; ++s) (*to)[s].Merge(from[s]);
}

void AddShare(const Window& window, std::vector<double>* log) {
  const auto in = static_cast<double>(window.arms[kCanary].first_users);
  const auto out = static_cast<double>(window.arms[kBaseline].first_users);
  const double share = window.canary_bps / 10'000.0;
  if (share <= 0 || share >= 1) return;
  log->resize(kOtherShares.size(), 0);
  for (size_t j = 0; j < kOtherShares.size(); ++j) {
    const double odds = kOtherShares[j] * share / (1 - share), other = odds / (1 + odds);
    (*log)[j] += in * std::log(other / share) + out * std::log((1 - other) / (1 - share));
  }
}

}  // namespace

std::string_view VerdictName(Verdict verdict) {
  constexpr std::array<std::string_view, 3> kNames = {"inconclusive", "pass", "fail"};
  return kNames[static_cast<size_t>(verdict)];
}

Analysis::Tail::Tail(double max) : max_ratio(max), worse(kWorseTail, true), better(max, false) {}

void Analysis::Tail::Add(const Strata& canary, const Strata& baseline) {
  worse.Add(canary, baseline);
  better.Add(canary, baseline);
  std::array<Sketch, kArms>& now = recent.emplace_back();
  for (size_t s = 0; s < kStrata; ++s) {
    now[kCanary].Merge(canary[s]);
    now[kBaseline].Merge(baseline[s]);
  }
  if (recent.size() > kRecent) recent.pop_front();
}

std::array<Sketch, kArms> Analysis::Tail::Recent() const {
  std::array<Sketch, kArms> all;
  for (const auto& window : recent) {
    for (size_t arm = 0; arm < kArms; ++arm) all[arm].Merge(window[arm]);
  }
  return all;
}

void Analysis::Tail::OnStage() {
  better.ResetEvidence();
  recent.clear();
}

Analysis::Analysis(const AnalysisOptions& options)
    : options_(options),
      errors_worse_(ErrorsWorse()),
      errors_better_(ErrorsBetter(options.max_error_ratio)),
      errors_allowed_(ErrorsAllowed(options.allowed_error_rate)),
      errors_too_many_(RateAbove(options.allowed_error_rate)),
      crash_rate_(RateAbove(options.max_crash_rate)),
      ttft_(options.max_ttft_ratio),
      latency_(options.max_latency_ratio) {}

void Analysis::OnStage(uint32_t canary_bps) {
  bps_ = canary_bps;
  events_ = failures_ = {};
  errors_better_ = ErrorsBetter(options_.max_error_ratio);
  errors_allowed_ = ErrorsAllowed(options_.allowed_error_rate);
  ttft_.OnStage();
  latency_.OnStage();
  for (auto& points : memory_) points.clear();  // another share holds other bytes
}

void Analysis::Add(std::span<const Window> windows) {
  std::array<uint64_t, kArms> n = {}, x = {};
  std::array<Strata, kArms> ttft, latency;
  std::array<double, kArms> bytes = {};
  bool any = false;
  double seconds = 0;
  for (const Window& window : windows) {
    const ArmWindow& canary = window.arms[kCanary];
    seconds = ToSeconds(window.length) * static_cast<double>(window.index);
    crashes_ += canary.crashes;  // also of a mixed window: it is the first one after a crash
    crash_rate_.Add(canary.requests + canary.crashes, canary.crashes);
    crash_n_ += canary.requests + canary.crashes;
    if (canary.crashes > 0) crash_times_.push_back(seconds);
    if (window.mixed) continue;
    any = true;
    for (size_t arm = 0; arm < kArms; ++arm) {
      n[arm] += window.arms[arm].events;
      x[arm] += window.arms[arm].failures;
      bytes[arm] += window.arms[arm].memory_bytes;
      Merge(window.arms[arm].ttft_ms, &ttft[arm]);
      Merge(window.arms[arm].latency_ms, &latency[arm]);
    }
    if (shares_.size() < kMaxReplicas || shares_.contains(window.replica)) AddShare(window, &shares_[window.replica]);
  }
  while (crash_times_.size() > kMaxCrashTimes) crash_times_.pop_front();
  if (!any) return;
  for (size_t arm = 0; arm < kArms; ++arm) {
    events_[arm] += n[arm];
    failures_[arm] += x[arm];
    memory_[arm].push_back({.seconds = seconds, .value = bytes[arm]});
    if (memory_[arm].size() <= kMemoryPoints) continue;
    std::deque<TrendPoint> half;
    for (size_t i = 0; i < memory_[arm].size(); i += 2) half.push_back(memory_[arm][i]);
    memory_[arm] = std::move(half);
  }
  errors_worse_.Add(n[kCanary], x[kCanary], n[kBaseline], x[kBaseline]);
  errors_better_.Add(n[kCanary], x[kCanary], n[kBaseline], x[kBaseline]);
  errors_allowed_.Add(n[kCanary], x[kCanary]);
  if (n[kBaseline] == 0) errors_too_many_.Add(n[kCanary], x[kCanary]);
  error_ratio_.Add(n[kCanary], x[kCanary], n[kBaseline], x[kBaseline]);
  ttft_.Add(ttft[kCanary], ttft[kBaseline]);
  latency_.Add(latency[kCanary], latency[kBaseline]);
}

std::string Analysis::Encode() const {
  return json({{"bps", bps_},
               {"events", events_},
               {"failures", failures_},
               {"errors_worse", errors_worse_.state()},
               {"errors_better", errors_better_.state()},
               {"errors_allowed", errors_allowed_.state()},
               {"errors_too_many", errors_too_many_.state()},
               {"error_ratio", error_ratio_.state()},
               {"ttft_worse", ttft_.worse.state()},
               {"ttft_better", ttft_.better.state()},
               {"latency_worse", latency_.worse.state()},
               {"latency_better", latency_.better.state()},
               {"crash_rate", crash_rate_.state()},
               {"crash_n", crash_n_},
               {"crashes", crashes_},
               {"crash_times", crash_times_},
               {"shares", shares_}})
      .dump();
}

absl::StatusOr<Analysis> Analysis::Decode(const AnalysisOptions& options, std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  Analysis out(options);
  bool good = object.is_object();
  const auto numbers = [&](const char* name, const json& of) {
    std::vector<double> values;
    const bool fit = of.is_array() && std::all_of(of.begin(), of.end(), [](const json& v) { return v.is_number(); });
    if (fit) values = of.get<std::vector<double>>();
    good = good && fit && values.size() <= 1'000 && name != nullptr;
    return values;
  };
  const auto field = [&](const char* name) {
    return good && object.contains(name) ? numbers(name, object[name]) : (good = false, std::vector<double>());
  };
  const auto counts = [&](const char* name, std::array<uint64_t, kArms>* to) {
    const std::vector<double> values = field(name);
    good = good && values.size() == kArms && values[0] >= 0 && values[1] >= 0;
    if (good) *to = {static_cast<uint64_t>(values[0]), static_cast<uint64_t>(values[1])};
  };
  const auto count = [&](const char* name, auto* to) {
    good = good && object.contains(name) && object[name].is_number_unsigned();
    if (good) *to = object[name].get<std::decay_t<decltype(*to)>>();
  };
  count("bps", &out.bps_);
  counts("events", &out.events_);
  counts("failures", &out.failures_);
  const auto restore = [&](const char* name, auto& test) { good = test.Restore(field(name)) && good; };
  restore("errors_worse", out.errors_worse_);
  restore("errors_better", out.errors_better_);
  restore("errors_allowed", out.errors_allowed_);
  restore("errors_too_many", out.errors_too_many_);
  restore("error_ratio", out.error_ratio_);
  restore("ttft_worse", out.ttft_.worse);
  restore("ttft_better", out.ttft_.better);
  restore("latency_worse", out.latency_.worse);
  restore("latency_better", out.latency_.better);
  restore("crash_rate", out.crash_rate_);
  count("crash_n", &out.crash_n_);
  count("crashes", &out.crashes_);
  for (const double t : field("crash_times")) out.crash_times_.push_back(t);
  good = good && object.contains("shares") && object["shares"].is_object() && object["shares"].size() <= kMaxReplicas;
  if (good) {
    for (const auto& [replica, log] : object["shares"].items()) {
      std::vector<double> values = numbers("shares", log);
      good = good && (values.empty() || values.size() == kOtherShares.size());
      out.shares_[replica] = std::move(values);
    }
  }
  if (!good) return absl::DataLossError("is no evidence");
  return out;
}

}  // namespace sluice::rollout
