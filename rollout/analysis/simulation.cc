#include "rollout/analysis/simulation.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <deque>
#include <random>
#include <thread>
#include <utility>

namespace sluice::rollout {
namespace {

constexpr size_t kRules = 4;
constexpr std::array<const char*, kRules> kRuleNames = {"e-values", "ratio, sliding", "ratio, cumulative",
                                                        "Mann-Whitney"};
constexpr size_t kBaseline = 0, kCanary = 1;
constexpr uint64_t kMinCanary = 100;

// One window's requests of one arm.
struct Drawn {
  uint64_t n = 0, failures = 0;
  std::vector<double> ms;  // of those that did not fail
};

// When each rule raised its alarm; negative: never.
struct Alarm {
  double canary_requests = -1, seconds = -1;
};

bool RatioAbove(const SimulationOptions& o, const std::array<Drawn, kArms>& sum) {
  if (sum[kCanary].n < kMinCanary || sum[kBaseline].n == 0) return false;
  const auto rate = [](const Drawn& d) { return static_cast<double>(d.failures) / static_cast<double>(d.n); };
  if (rate(sum[kCanary]) > o.analysis.max_error_ratio * rate(sum[kBaseline])) return true;
  const auto p95 = [](std::vector<double> ms) {
    if (ms.empty()) return 0.0;
    const auto at = ms.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(ms.size() - 1) * 0.95);
    std::nth_element(ms.begin(), at, ms.end());
    return *at;
  };
  return p95(sum[kCanary].ms) > o.analysis.max_ttft_ratio * p95(sum[kBaseline].ms);
}

// Is the canary slower, at 1 % one-sided?
bool MannWhitney(const std::vector<double>& canary, const std::vector<double>& baseline) {
  constexpr double kZ = 2.3263479;
  if (canary.size() < 8 || baseline.size() < 8) return false;
  std::vector<std::pair<double, bool>> all;
  for (const double v : canary) all.emplace_back(v, true);
  for (const double v : baseline) all.emplace_back(v, false);
  std::sort(all.begin(), all.end());
  double ranks = 0;
  for (size_t i = 0; i < all.size(); ++i) ranks += all[i].second ? static_cast<double>(i + 1) : 0;
  const auto n1 = static_cast<double>(canary.size()), n0 = static_cast<double>(baseline.size());
  const double u = ranks - n1 * (n1 + 1) / 2;
  return (u - n1 * n0 / 2) / std::sqrt(n1 * n0 * (n1 + n0 + 1) / 12) > kZ;
}

class Trial {
 public:
  Trial(const SimulationOptions& options, uint64_t number)
      : o_(options), random_(options.seed * 1'000'003 + number), analysis_(options.analysis) {}

  std::array<Alarm, kRules> Run() {
    std::array<Alarm, kRules> alarms;
    const int64_t windows = o_.duration / o_.window;
    for (int64_t w = 0; w < windows; ++w) {
      const std::array<Drawn, kArms> now = Draw();
      canary_requests_ += static_cast<double>(now[kCanary].n);
      const std::array<bool, kRules> raised = {EValues(now, w), Sliding(now), Cumulative(now),
                                               MannWhitney(now[kCanary].ms, now[kBaseline].ms)};
      for (size_t r = 0; r < kRules; ++r) {
        if (raised[r] && alarms[r].seconds < 0) {
          alarms[r] = {canary_requests_, ToSeconds(o_.window) * static_cast<double>(w + 1)};
        }
      }
    }
    return alarms;
  }
  double canary_requests() const { return canary_requests_; }

 private:
  std::array<Drawn, kArms> Draw() {
    const double expected = o_.requests_per_second * ToSeconds(o_.window), share = o_.canary_bps / 10'000.0;
    std::lognormal_distribution<double> latency(std::log(o_.median_ms), o_.sigma);
    std::array<Drawn, kArms> out;
    for (size_t arm = 0; arm < kArms; ++arm) {
      const bool canary = arm == kCanary;
      Drawn& d = out[arm];
      d.n = std::poisson_distribution<uint64_t>(expected * (canary ? share : 1 - share))(random_);
      const double error = std::min(1.0, o_.base_error * (canary ? o_.error_ratio : 1));
      d.failures = std::binomial_distribution<uint64_t>(d.n, error)(random_);
      for (uint64_t i = d.failures; i < d.n; ++i) d.ms.push_back(latency(random_) * (canary ? o_.latency_ratio : 1));
    }
    return out;
  }

  bool EValues(const std::array<Drawn, kArms>& now, int64_t index) {
    Window window{.attempt = "f#1", .replica = "r", .index = index, .length = o_.window, .canary_bps = o_.canary_bps};
    for (size_t arm = 0; arm < kArms; ++arm) {
      ArmWindow& out = window.arms[arm];
      out.requests = out.events = out.first_users = now[arm].n;
      out.failures = now[arm].failures;
      for (const double ms : now[arm].ms) out.ttft_ms[0].Add(ms);
      out.latency_ms = out.ttft_ms;
    }
    analysis_.Add(std::array{window});
    return analysis_.Judge().verdict == Verdict::kFail;
  }

  bool Sliding(const std::array<Drawn, kArms>& now) {
    recent_.push_back(now);
    uint64_t n = 0;
    for (const auto& window : recent_) n += window[0].n + window[1].n;
    while (recent_.size() > 1 && n - recent_.front()[0].n - recent_.front()[1].n >= 1'000) {
      n -= recent_.front()[0].n + recent_.front()[1].n;
      recent_.pop_front();
    }
    std::array<Drawn, kArms> sum;
    for (const auto& window : recent_) Sum(window, &sum);
    return RatioAbove(o_, sum);
  }
  bool Cumulative(const std::array<Drawn, kArms>& now) {
    std::array<Drawn, kArms> counts = now;
    for (Drawn& d : counts) d.ms.clear();  // errors alone: all latencies of an hour are no sensible rule
    Sum(counts, &all_);
    return RatioAbove(o_, all_);
  }
  static void Sum(const std::array<Drawn, kArms>& from, std::array<Drawn, kArms>* to) {
    for (size_t arm = 0; arm < kArms; ++arm) {
      (*to)[arm].n += from[arm].n;
      (*to)[arm].failures += from[arm].failures;
      (*to)[arm].ms.insert((*to)[arm].ms.end(), from[arm].ms.begin(), from[arm].ms.end());
    }
  }

  const SimulationOptions& o_;
  std::mt19937_64 random_;
  Analysis analysis_;
  std::deque<std::array<Drawn, kArms>> recent_;
  std::array<Drawn, kArms> all_;
  double canary_requests_ = 0;
};

double Median(std::vector<double>& values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

RuleResult Summarize(const char* rule, const std::vector<Alarm>& alarms) {
  RuleResult result{.rule = rule};
  std::vector<double> requests, seconds;
  for (const Alarm& alarm : alarms) {
    if (alarm.seconds < 0) continue;
    ++result.alarms;
    requests.push_back(alarm.canary_requests);
    seconds.push_back(alarm.seconds);
  }
  result.median_canary_requests = Median(requests);
  result.median_seconds = Median(seconds);
  constexpr double kZ = 1.959963985;
  const auto n = static_cast<double>(alarms.size());
  const double p = result.alarms / n, scale = 1 + kZ * kZ / n, middle = p + kZ * kZ / (2 * n);
  const double half = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  result.low = std::max(0.0, (middle - half) / scale);
  result.high = std::min(1.0, (middle + half) / scale);
  return result;
}

}  // namespace

SimulationResult Simulate(const SimulationOptions& options, const std::function<void(int done)>& progress) {
  const auto trials = static_cast<size_t>(options.trials);
  std::vector<std::array<Alarm, kRules>> alarms(trials);
  std::vector<double> requests(trials);
  std::atomic<size_t> next{0};  // atomic: the threads take trials from it
  std::atomic<int> done{0};     // likewise counted by all
  const auto work = [&] {
    for (size_t i = next++; i < trials; i = next++) {
      Trial trial(options, i);
      alarms[i] = trial.Run();
      requests[i] = trial.canary_requests();
      const int finished = ++done;
      if (progress) progress(finished);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 1; t < options.threads; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  SimulationResult result{.trials = options.trials};
  for (const double r : requests) result.canary_requests += r / static_cast<double>(trials);
  for (size_t r = 0; r < kRules; ++r) {
    std::vector<Alarm> of;
    for (const auto& trial : alarms) of.push_back(trial[r]);
    result.rules.push_back(Summarize(kRuleNames[r], of));
  }
  return result;
}

}  // namespace sluice::rollout
