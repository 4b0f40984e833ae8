// What a request pays at the gate while the configuration is replaced again and again: a storm of 100 reloads a second
// against none. Percentiles of single decisions, with the time that a look at the clock takes in them.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "flags/flag_gate.h"
#include "fmt/format.h"
#include "loadtest/components/measure.h"

namespace sluice::components {
namespace {

using flags::Flag;
using flags::FlagGate;
using flags::FlagSet;

constexpr uint32_t kHalf = flags::kBuckets / 2;
constexpr size_t kMostSamples = 1 << 22;

// 97 flags beside the three of every request; even epochs put half of the keys in, odd ones nobody.
std::shared_ptr<const FlagSet> MakeSet(uint64_t epoch) {
  flags::FlagSetSpec spec;
  const auto add = [&](std::string key, std::string_view parent) {
    spec.flags.push_back({.key = std::move(key),
                          .enabled = true,
                          .rollout_bps = epoch % 2 == 0 ? kHalf : 0,
                          .parent = std::string(parent)});
  };
  add(std::string(flags::kPhase5), "");
  add(std::string(flags::kTtftPipeline), flags::kPhase5);
  add(std::string(flags::kQosPolicy), flags::kPhase5);
  for (int i = 0; i < 97; ++i) add(fmt::format("flag-{:02}", i), flags::kPhase5);
  auto set = FlagSet::Create(std::move(spec), epoch);
  SLUICE_CHECK(set.ok(), "the flags are good");
  return *std::move(set);
}

// Replaces the set `per_second` times a second, validated anew each time, until it ends.
class Storm {
 public:
  Storm(FlagGate& gate, int per_second) {
    if (per_second == 0) return;
    thread_ = std::thread([this, &gate, pause = Duration(std::chrono::seconds(1)) / per_second] {
      MutexLock lock(mu_);
      for (uint64_t epoch = 2; !stop_; ++epoch) {
        mu_.Unlock();
        gate.Swap(MakeSet(epoch));
        ++reloads_;
        mu_.Lock();
        if (!stop_) wake_.WaitFor(mu_, pause);
      }
    });
  }
  ~Storm() { End(); }

  int64_t End() {
    {
      MutexLock lock(mu_);
      stop_ = true;
    }
    wake_.SignalAll();
    if (thread_.joinable()) thread_.join();
    return reloads_;
  }

 private:
  Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  int64_t reloads_ = 0;  // the thread's, until it has ended
  std::thread thread_;
};

double Percentile(std::vector<uint32_t>& ns, double share) {
  const size_t at = std::min(ns.size() - 1, static_cast<size_t>(share * static_cast<double>(ns.size())));
  std::nth_element(ns.begin(), ns.begin() + static_cast<int64_t>(at), ns.end());
  return ns[at];
}

void Reloads(benchmark::State& state) {
  MetricsRegistry metrics;
  FlagGate gate(MakeSet(1), metrics);
  std::vector<std::string> keys;
  for (int i = 0; i < 1024; ++i) keys.push_back(fmt::format("user-{}", i));
  std::vector<uint32_t> ns;
  ns.reserve(kMostSamples);
  const SystemClock clock;
  int64_t torn = 0, asked = 0;
  Storm storm(gate, static_cast<int>(state.range(0)));
  for ([[maybe_unused]] auto _ : state) {
    const MonoTime begin = clock.Now();
    const flags::RequestDecisions d = gate.Decide({.targeting_key = keys[static_cast<size_t>(asked) % keys.size()]});
    const Duration took = clock.Now() - begin;
    const uint64_t epoch = d.snapshot->epoch();
    const bool one = d.phase5.epoch == epoch && d.ttft_pipeline.epoch == epoch && d.qos_policy.epoch == epoch;
    torn += one && (epoch % 2 == 0 || !d.phase5.in) ? 0 : 1;
    if (ns.size() < kMostSamples) {
      ns.push_back(static_cast<uint32_t>(took.count()));
    } else {
      ns[static_cast<size_t>(asked) % kMostSamples] = static_cast<uint32_t>(took.count());
    }
    ++asked;
  }
  const int64_t reloads = storm.End();
  if (torn != 0) Fail(state, "a decision mixed two configurations");
  state.counters["reloads"] = static_cast<double>(reloads);
  state.counters["p50_ns"] = Percentile(ns, 0.5);
  state.counters["p99_ns"] = Percentile(ns, 0.99);
  state.counters["p99.9_ns"] = Percentile(ns, 0.999);
}
BENCHMARK(Reloads)->Name("gate/reloads_per_second")->Arg(0)->Arg(100)->UseRealTime();

}  // namespace
}  // namespace sluice::components
