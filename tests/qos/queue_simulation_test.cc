// The yardstick of admitctl (short-request p99 under a mixed overload, anchors/qos_reliability.md §2.8): two places,
// short and long answers, more work than there is capacity. A manual clock and a seed: the numbers are always the same.
#include <cmath>
#include <iostream>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "qos/admission.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

constexpr int kPlaces = 2, kShortTokens = 20, kLongTokens = 160, kPromptTokens = 64;
constexpr double kLongShare = 0.2, kTokensPerSecond = 20, kLatencyObjectiveS = 10;
// Mean service: 0.8 × 1 s + 0.2 × 8 s = 2.4 s.
constexpr double kCapacity = kPlaces / 2.4, kShortWork = 0.8 / 2.4;

struct Result {
  std::vector<double> short_latency, long_latency;  // s, arrival to end
  int shorts = 0, longs = 0, in_time = 0;           // in_time: shorts within the objective

  double ShortP99() const {
    std::vector<double> sorted = short_latency;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() * 99 / 100];
  }
  double Attainment() const { return static_cast<double>(in_time) / shorts; }
  double LongServed() const { return static_cast<double>(long_latency.size()) / longs; }
};

class Simulation {
 public:
  Simulation(const AdmissionOptions& options, uint32_t seed) : admission_(options, clock_, metrics_), random_(seed) {}

  Result Run(double load, int requests) {
    MonoTime next_arrival = clock_.Now();
    for (int i = 0; i < requests || !ends_.empty();) {
      const bool arrives = i < requests && (ends_.empty() || next_arrival <= ends_.top().first);
      const MonoTime at = arrives ? next_arrival : ends_.top().first;
      clock_.Advance(at - clock_.Now());
      admission_.Tick();
      if (!arrives) {
        const size_t ended = ends_.top().second;
        ends_.pop();
        running_[ended]->Settle(Outcome::kSuccess);
        running_[ended].reset();
        continue;
      }
      Arrive();
      ++i;
      next_arrival += FromMillis(-std::log(1 - Uniform()) * 1000 / (load * kCapacity));
    }
    admission_.StartDrain({});
    return result_;
  }

 private:
  double Uniform() { return static_cast<double>(random_()) / 4294967296.0; }

  void Arrive() {
    const bool is_long = Uniform() < kLongShare;
    const int tokens = is_long ? kLongTokens : kShortTokens;
    ++(is_long ? result_.longs : result_.shorts);
    const MonoTime arrival = clock_.Now();
    const EngineLoad load{.slots = kPlaces,
                          .running = static_cast<int>(ends_.size()),
                          .prefill_tokens_per_second = 1000,
                          .decode_tokens_per_second = kPlaces * kTokensPerSecond};
    admission_.Admit({.prompt_tokens = kPromptTokens, .max_tokens = tokens, .arrival = arrival}, &load,
                     [this, tokens, is_long, arrival](Answer answer) {
                       if (!answer.ok()) return;
                       const MonoTime end = clock_.Now() + FromMillis(tokens / kTokensPerSecond * 1000);
                       ends_.emplace(end, running_.size());
                       running_.emplace_back(*std::move(answer));
                       const double latency = ToSeconds(end - arrival);
                       (is_long ? result_.long_latency : result_.short_latency).push_back(latency);
                       result_.in_time += !is_long && latency <= kLatencyObjectiveS;
                     });
  }

  test::ManualClock clock_;
  MetricsRegistry metrics_;
  Result result_;
  using End = std::pair<MonoTime, size_t>;
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
  std::vector<std::optional<Permit>> running_;
  Admission admission_;  // goes first
  std::mt19937 random_;
};

Result Serve(QueueOrder order, double load, uint32_t seed) {
  AdmissionOptions options{.max_concurrent = kPlaces,
                           .queue_timeout = std::chrono::seconds(60),
                           .default_deadline = Duration::zero(),
                           .order = order,
                           .feasibility = Feasibility::kOff};
  Result result = Simulation(options, seed).Run(load, 3000);
  std::cout << fmt::format("load {:.2f} {:14}: short p99 {:4.1f} s, shorts within {} s {:.2f}, longs served {:.2f}\n",
                           load, order == QueueOrder::kFcfs ? "fcfs" : "shortest_first", result.ShortP99(),
                           kLatencyObjectiveS, result.Attainment(), result.LongServed());
  return result;
}

TEST(QueueSimulationTest, ShortRequestsUnderAMixedOverload) {
  constexpr uint32_t kSeed = 20261123;
  std::cout << "seed " << kSeed << "\n";
  for (double load : {1.0, 1.3, 2.0}) {
    const Result fcfs = Serve(QueueOrder::kFcfs, load, kSeed);
    const Result shortest = Serve(QueueOrder::kShortestFirst, load, kSeed);
    EXPECT_LT(shortest.ShortP99(), 0.25 * fcfs.ShortP99());
    EXPECT_GT(shortest.Attainment(), 10 * fcfs.Attainment());
    // Long work gets all that short work leaves, up to the noise of arrivals: it does not starve.
    const double left = (1 - load * kShortWork) / (load * (1 - kShortWork));
    EXPECT_GT(shortest.LongServed(), 0.9 * std::min(1.0, left));
  }
}

}  // namespace
}  // namespace sluice::qos
