#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "rollout/analysis/analysis.h"
#include "rollout/analysis/hypotheses.h"

namespace sluice::rollout {
namespace {

constexpr size_t kCanary = static_cast<size_t>(Arm::kCanary), kBaseline = static_cast<size_t>(Arm::kBaseline);
constexpr double kSampleRatioAlpha = 0.001;
constexpr uint64_t kMinTail = 20;  // latencies of each arm, before their 95th percentiles are compared
constexpr double kHour = 3600;

double Share(uint64_t x, uint64_t n) { return n == 0 ? 0 : static_cast<double>(x) / static_cast<double>(n); }

// e-values grow beyond what a double holds.
double E(double log_e) { return std::exp(std::min(log_e, 690.0)); }

std::string Describe(const Check& check) {
  if (check.name == "memory_growth") {
    return fmt::format("{}: {:.0f} % an hour", check.name, check.canary * 100);
  }
  if (check.name == "crash_rate")
    return fmt::format("{}: {:.2f} % of {} requests", check.name, check.canary * 100, check.samples);
  if (check.name == "error_rate") {
    return fmt::format(
        "error_rate: {:.2f} % against {:.2f} % of the baseline, ratio {:.2f}, e-value {:.3g} (limit {:.0f})",
        check.canary * 100, check.baseline * 100, check.ratio, check.e_value, check.e_limit);
  }
  return fmt::format("{}: {:.0f} ms against {:.0f} ms of the baseline, ratio {:.2f}, e-value {:.3g} (limit {:.0f})",
                     check.name, check.canary, check.baseline, check.ratio, check.e_value, check.e_limit);
}

// The 97.5 % interval of a quantile by its order statistics (normal approximation of their ranks), so that a ratio of
// two of them is covered with 95 %. Infinite above where the sample is too small to have an upper end.
std::pair<double, double> QuantileInterval(const Sketch& values, double q) {
  constexpr double kZ = 2.2414;
  const double width = kZ * std::sqrt(q * (1 - q) / static_cast<double>(values.count()));
  const double high = q + width < 1 ? values.Quantile(q + width) : std::numeric_limits<double>::infinity();
  return {values.Quantile(q - width), high};
}

void Decide(Check* check, bool too_large) {
  if (check->e_value >= check->e_limit && too_large) {
    check->verdict = Verdict::kFail;
  } else if (check->pass_e_value >= check->pass_limit) {
    check->verdict = Verdict::kPass;
  }
}

}  // namespace

Check Analysis::CheckErrors() const {
  const bool alone = events_[kBaseline] == 0 && bps_ >= 10'000;
  const PooledRatio::Estimate ratio = error_ratio_.Get();
  Check check{.name = "error_rate",
              .canary = Share(failures_[kCanary], events_[kCanary]),
              .baseline = Share(failures_[kBaseline], events_[kBaseline]),
              .ratio = ratio.ratio,
              .low = ratio.low,
              .high = ratio.high,
              .e_value = E(alone ? errors_too_many_.LogE() : errors_worse_.LogE()),
              .e_limit = FailLimit(options_.alpha),
              .pass_e_value = E(std::max(errors_better_.LogE(), errors_allowed_.LogE())),
              .pass_limit = ErrorPassLimit(options_.beta),
              .samples = events_[kCanary]};
  Decide(&check,
         alone ? check.canary > options_.allowed_error_rate : ratio.known && ratio.ratio > options_.max_error_ratio);
  return check;
}

Check Analysis::CheckTail(std::string_view name, const Tail& tail) const {
  const std::array<Sketch, kArms> recent = tail.Recent();
  const bool known = recent[kCanary].count() >= kMinTail && recent[kBaseline].count() >= kMinTail;
  Check check{.name = std::string(name),
              .canary = recent[kCanary].Quantile(0.95),
              .baseline = recent[kBaseline].Quantile(0.95),
              .e_value = E(tail.worse.LogE()),
              .e_limit = FailLimit(options_.alpha),
              .pass_e_value = E(tail.better.LogE()),
              .pass_limit = TailPassLimit(options_.beta),
              .samples = tail.better.canary_n()};
  if (known && check.baseline > 0) {
    const auto canary = QuantileInterval(recent[kCanary], 0.95), baseline = QuantileInterval(recent[kBaseline], 0.95);
    check.ratio = check.canary / check.baseline;
    check.low = canary.first / baseline.second;
    check.high = baseline.first > 0 ? canary.second / baseline.first : std::numeric_limits<double>::infinity();
  }
  Decide(&check, check.ratio > tail.max_ratio);
  if (events_[kBaseline] == 0 && bps_ >= 10'000 && check.verdict == Verdict::kInconclusive) {
    check.verdict = Verdict::kPass;  // nobody is left to compare with: earlier stages did
  }
  return check;
}

Check Analysis::CheckCrashes() const {
  Check check{.name = "crash_rate",
              .verdict = Verdict::kPass,
              .canary = Share(crashes_, crash_n_),
              .e_value = E(crash_rate_.LogE()),
              .e_limit = FailLimit(options_.alpha),
              .samples = crash_n_};
  const double span = ToSeconds(options_.crash_span);
  bool close = false;
  for (size_t i = 1; i < crash_times_.size(); ++i) close = close || crash_times_[i] - crash_times_[i - 1] <= span;
  if (close || (check.e_value >= check.e_limit && check.canary > options_.max_crash_rate)) {
    check.verdict = Verdict::kFail;
  }
  return check;
}

Check Analysis::CheckMemory() const {
  Check check{.name = "memory_growth", .verdict = Verdict::kPass};
  std::array<Trend, kArms> trends;
  for (size_t arm = 0; arm < kArms; ++arm) {
    trends[arm] = TheilSen(std::vector<TrendPoint>(memory_[arm].begin(), memory_[arm].end()));
  }
  const Trend &canary = trends[kCanary], &baseline = trends[kBaseline];
  check.samples = memory_[kCanary].size();
  if (!canary.known || canary.median <= 0) return check;
  const auto hourly = [&canary](double slope) { return slope * kHour / canary.median; };
  check.canary = hourly(canary.slope);
  check.low = hourly(canary.low);
  check.high = hourly(canary.high);
  // What the baseline's bytes do, at the canary's size: load, not a leak.
  const double load = baseline.known && baseline.median > 0 ? baseline.slope * canary.median / baseline.median : 0;
  check.baseline = hourly(load);
  const double grown = canary.slope * canary.span_seconds;
  if (canary.span_seconds >= ToSeconds(options_.memory_span) && check.low > options_.max_growth_per_hour &&
      canary.slope > load && grown > options_.min_growth_bytes) {
    check.verdict = Verdict::kFail;
  }
  return check;
}

std::string Analysis::SampleRatioAlarm() const {
  double sum = 0;
  size_t replicas = 0;
  std::string worst;
  double highest = 0;
  for (const auto& [replica, log] : shares_) {
    if (log.empty()) continue;
    double e = 0;
    for (const double l : log) e += E(l) / static_cast<double>(log.size());
    if (e > highest) worst = replica;
    highest = std::max(highest, e);
    sum += e;
    ++replicas;
  }
  if (replicas == 0 || sum / static_cast<double>(replicas) < 1 / kSampleRatioAlpha) return "";
  return fmt::format(
      "sample_ratio: the arms do not get the shares they should (e-value {:.3g}, most on replica {}): "
      "something sorts or counts wrongly",
      sum / static_cast<double>(replicas), worst);
}

// The ratios as they are, as soon as there are samples.
Judgement Analysis::Threshold(Judgement judgement) const {
  const bool enough = std::min(events_[kCanary], events_[kBaseline]) >= options_.threshold_samples;
  const auto tail = [](const Check& check, double limit) {
    return check.ratio == 0 ? Verdict::kInconclusive : check.ratio > limit ? Verdict::kFail : Verdict::kPass;
  };
  for (Check& check : judgement.checks) {
    check.e_limit = check.pass_limit = 0;
    if (check.name == "memory_growth") continue;
    if (!enough) {
      check.verdict = Verdict::kInconclusive;
    } else if (check.name == "error_rate") {
      check.ratio = check.baseline > 0 ? check.canary / check.baseline
                    : check.canary > 0 ? std::numeric_limits<double>::infinity()
                                       : 0;
      check.verdict = check.ratio > options_.max_error_ratio ? Verdict::kFail : Verdict::kPass;
    } else if (check.name == "crash_rate") {
      check.verdict = check.canary > options_.max_crash_rate ? Verdict::kFail : Verdict::kPass;
    } else {
      check.verdict = tail(check, check.name == "ttft_p95" ? options_.max_ttft_ratio : options_.max_latency_ratio);
    }
  }
  return judgement;
}

Judgement Analysis::Judge() const {
  Judgement judgement{.hold = SampleRatioAlarm()};
  judgement.checks = {CheckErrors(), CheckTail("ttft_p95", ttft_), CheckTail("latency_p95", latency_), CheckCrashes(),
                      CheckMemory()};
  if (options_.mode == Mode::kThreshold) judgement = Threshold(std::move(judgement));
  std::vector<std::string> failed, open;
  for (const Check& check : judgement.checks) {
    if (check.verdict == Verdict::kFail) failed.push_back(Describe(check));
    if (check.verdict == Verdict::kInconclusive) open.push_back(check.name);
  }
  if (!failed.empty()) {
    judgement.verdict = Verdict::kFail;
    judgement.cause = fmt::format("{}", fmt::join(failed, "; "));
  } else if (!open.empty()) {
    judgement.cause = fmt::format("not decided yet: {}", fmt::join(open, ", "));
  } else {
    judgement.verdict = Verdict::kPass;
    judgement.cause = "no metric is worse, and that is shown";
  }
  return judgement;
}

}  // namespace sluice::rollout
