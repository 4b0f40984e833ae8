#include "rollout/analysis/dwell_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "rollout/analysis/hypotheses.h"

namespace sluice::rollout {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kAll = 10'000;      // basis points
constexpr double kMany = 1'000'000;  // canary events whose expected counts are given to a test: enough digits

// How many canary events it takes until a test that bets on several alternatives, `log` the evidence of each after
// kMany events, reaches `limit`.
double EventsUntil(const std::vector<double>& log, double limit) {
  const double best = *std::max_element(log.begin(), log.end());
  if (best <= 0) return kNever;
  const auto reached = [&](double share) {
    double sum = 0;
    for (const double l : log) sum += std::exp((l - best) * share);
    return best * share + std::log(sum / static_cast<double>(log.size())) >= std::log(limit);
  };
  // The best alternative alone reaches it by `high`, as one bet among others.
  double low = 0, high = (std::log(limit) + std::log(static_cast<double>(log.size()))) / best;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (reached(middle) ? high : low) = middle;
  }
  return high * kMany;
}

uint64_t Count(double expected) { return static_cast<uint64_t>(std::llround(expected)); }

// After kMany canary events, and as many of the baseline as go with them.
template <typename Test>
double RatioEvents(Test test, uint32_t bps, double canary_rate, double baseline_rate, double limit) {
  const double baseline = kMany * (kAll - bps) / bps;
  test.Add(Count(kMany), Count(kMany * std::min(1.0, canary_rate)), Count(baseline), Count(baseline * baseline_rate));
  return EventsUntil(test.state(), limit);
}
double RateEvents(RateTest test, double rate, double limit) {
  test.Add(Count(kMany), Count(kMany * std::min(1.0, rate)));
  return EventsUntil(test.state(), limit);
}

// How often a log-normal latency, `latency_ratio` times the baseline's, exceeds `scale` times the baseline's 95th
// percentile.
double Exceeds(double latency_ratio, double scale, double sigma) {
  constexpr double kZ95 = 1.6448536;
  const double z = kZ95 + std::log(scale / latency_ratio) / sigma;
  return std::erfc(z / std::sqrt(2)) / 2;
}

Need InWindows(const Traffic& traffic, uint32_t bps, double events, double windows_before) {
  const double per_window = traffic.events_per_second * ToSeconds(traffic.window) * bps / kAll;
  const double windows = std::max(1.0, std::ceil(events / per_window)) + windows_before;
  return {.canary_events = events + windows_before * per_window, .seconds = windows * ToSeconds(traffic.window)};
}

// Nothing is compared before the baseline has a past to take its percentile from.
Need TailNeed(const Traffic& traffic, uint32_t bps, double events) {
  const double baseline = traffic.events_per_second * ToSeconds(traffic.window) * (kAll - bps) / kAll;
  const double past = std::ceil(Exceedance::kMinHistory / baseline);
  return InWindows(traffic, bps, events, past > Exceedance::kMaxHistory ? kNever : past);
}

}  // namespace

Need ToSeeErrors(const AnalysisOptions& options, const Traffic& traffic, uint32_t canary_bps, double error_ratio) {
  const double rate = traffic.base_error * error_ratio, limit = FailLimit(options.alpha);
  double events = kNever;
  if (canary_bps >= kAll) {  // nobody to compare with
    if (rate > options.allowed_error_rate) events = RateEvents(RateAbove(options.allowed_error_rate), rate, limit);
  } else if (error_ratio >= options.max_error_ratio) {
    events = RatioEvents(ErrorsWorse(), canary_bps, rate, traffic.base_error, limit);
  }
  return InWindows(traffic, canary_bps, events, 0);
}

Need ToSeeLatency(const AnalysisOptions& options, const Traffic& traffic, uint32_t canary_bps, double latency_ratio) {
  const double limit = std::min(options.max_ttft_ratio, options.max_latency_ratio);
  double events = kNever;
  if (canary_bps < kAll && latency_ratio >= limit) {
    events =
        RatioEvents(TailExceeds(/*towards_worse=*/true), canary_bps, Exceeds(latency_ratio, kWorseTail, traffic.sigma),
                    Exceeds(1, 1, traffic.sigma), FailLimit(options.alpha));
  }
  return TailNeed(traffic, canary_bps, events);
}

Need ToPass(const AnalysisOptions& options, const Traffic& traffic, uint32_t canary_bps) {
  const double error = traffic.base_error, limit = ErrorPassLimit(options.beta);
  double events = RateEvents(ErrorsAllowed(options.allowed_error_rate), error, limit);
  if (canary_bps >= kAll) return InWindows(traffic, canary_bps, events, 0);  // tails: earlier stages showed them
  events = std::min(events, RatioEvents(ErrorsBetter(options.max_error_ratio), canary_bps, error, error, limit));
  const double scale = std::min(options.max_ttft_ratio, options.max_latency_ratio);
  const double tail = RatioEvents(TailExceeds(/*towards_worse=*/false), canary_bps, Exceeds(1, scale, traffic.sigma),
                                  Exceeds(1, 1, traffic.sigma), TailPassLimit(options.beta));
  const Need errors = InWindows(traffic, canary_bps, events, 0), tails = TailNeed(traffic, canary_bps, tail);
  return errors.seconds > tails.seconds ? errors : tails;
}

}  // namespace sluice::rollout
