// The gate: which features is a request in? Two threads beside one show that readers share no lock (they share the
// cache lines of a reference count and of counters).
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "flags/bucket.h"
#include "flags/flag_gate.h"
#include "fmt/format.h"
#include "loadtest/components/measure.h"
#include "nlohmann/json.hpp"

namespace sluice::components {
namespace {

using flags::Flag;
using flags::FlagGate;
using flags::FlagSet;

// Salt and key of 54 bytes together: the most that one MD5 block holds beside the '-' and the padding.
constexpr std::string_view kSalt = "ttft_pipeline-2026";
constexpr uint32_t kKeys = 1024;

// Keys shaped like UUIDs, in turns, so that no branch and no hash is learnt by heart.
class Keys {
 public:
  std::string_view Next() { return keys_[next_++ % kKeys]; }

 private:
  static std::array<std::string, kKeys> Make() {
    std::array<std::string, kKeys> keys;
    for (uint32_t i = 0; i < kKeys; ++i) {
      keys[i] = fmt::format("{:08x}-0000-4000-8000-{:012x}", i * 2654435761U, i);
      SLUICE_CHECK(keys[i].size() + kSalt.size() == 54, "key and salt fill one block");
    }
    return keys;
  }
  const std::array<std::string, kKeys> keys_ = Make();
  size_t next_ = 0;
};

Flag HalfOn(std::string key, std::string parent = "") {
  return {.key = std::move(key),
          .enabled = true,
          .rollout_bps = flags::kBuckets / 2,
          .salt = std::string(kSalt),
          .parent = std::move(parent)};
}

// One gate for each of these sizes, for all threads and repetitions.
FlagGate& GateOf(int flags) {
  static const auto make = [](int n) {
    flags::FlagSetSpec spec;
    for (int i = 0; i < n; ++i) spec.flags.push_back(HalfOn(fmt::format("flag-{:04}", i)));
    static std::vector<std::unique_ptr<MetricsRegistry>> metrics;
    metrics.push_back(std::make_unique<MetricsRegistry>());
    return std::make_unique<FlagGate>(*FlagSet::Create(std::move(spec), 1), *metrics.back());
  };
  static const auto one = make(1), ten = make(10), thousand = make(1000);
  return flags == 1 ? *one : flags == 10 ? *ten : *thousand;
}

void OneFlag(benchmark::State& state) {
  const int flags = static_cast<int>(state.range(0));
  const FlagGate& gate = GateOf(flags);
  const std::string flag = fmt::format("flag-{:04}", flags / 2);
  Keys keys;
  Measure(state, [&] { benchmark::DoNotOptimize(gate.snapshot()->Evaluate(flag, {.targeting_key = keys.Next()})); });
}
BENCHMARK(OneFlag)->Name("gate/one_flag")->Arg(1)->Arg(10)->Arg(1000)->ThreadRange(1, 2);

// What a decision is measured against: the cheapest way to ask anybody, a virtual call that returns a constant.
class Decider {
 public:
  virtual ~Decider() = default;
  virtual bool Decide(std::string_view key) const = 0;
};
template <bool kAnswer>  // two of them, else the compiler knows which one it is and calls nobody
class Constant : public Decider {
 public:
  bool Decide(std::string_view) const override { return kAnswer; }
};

void VirtualConstant(benchmark::State& state) {
  std::unique_ptr<const Decider> decider = std::make_unique<Constant<true>>();
  if (state.range(0) == 0) decider = std::make_unique<Constant<false>>();
  Keys keys;
  Measure(state, [&] {
    const Decider* asked = decider.get();
    benchmark::DoNotOptimize(asked);
    benchmark::DoNotOptimize(asked->Decide(keys.Next()));
  });
}
BENCHMARK(VirtualConstant)->Name("gate/virtual_constant")->Arg(1);

// One flag at 50 % that also has to look at something before its percentage; nothing of it matches.
void Ask(benchmark::State& state, Flag flag) {
  MetricsRegistry metrics;
  const FlagGate gate(*FlagSet::Create({.flags = {std::move(flag)}}, 1), metrics);
  Keys keys;
  Measure(state, [&] {
    benchmark::DoNotOptimize(
        gate.snapshot()->Evaluate("flag", {.targeting_key = keys.Next(), .tenant = "acme", .user = "1.2.3"}));
  });
}

void List(benchmark::State& state) {
  Flag flag = HalfOn("flag");
  flags::KeySet listed;
  for (int i = 0; i < state.range(0); ++i) listed.insert(fmt::format("{:08x}-1111-4000-8000-{:012x}", i, i));
  flag.allow = std::make_shared<const flags::KeySet>(std::move(listed));
  Ask(state, std::move(flag));
}
BENCHMARK(List)->Name("gate/list")->Arg(10'000);

void Rules(benchmark::State& state) {
  Flag flag = HalfOn("flag");
  for (int i = 0; i < state.range(0); ++i) {
    flags::Condition tenant{.attribute = flags::Condition::Attribute::kTenant, .text = fmt::format("acm{}", i)};
    flag.rules.push_back({.name = fmt::format("rule-{}", i), .when = {std::move(tenant)}});
  }
  Ask(state, std::move(flag));
}
BENCHMARK(Rules)->Name("gate/rules")->Arg(1)->Arg(10);

// Two hashes: the percentage, and for those who are in the variant. With six bytes more than the percentage's, the
// message of the second one needs two blocks, unless the salt is shorter.
void Variants(benchmark::State& state, std::string_view salt) {
  Flag flag = HalfOn("flag");
  flag.salt = std::string(salt);
  for (const char* name : {"control", "treatment"}) {
    flag.variants.push_back({.name = name, .value = std::make_shared<const nlohmann::json>(name), .weight = 1});
  }
  Ask(state, std::move(flag));
}
BENCHMARK_CAPTURE(Variants, one_block, kSalt.substr(0, 12))->Name("gate/variants/1_block");
BENCHMARK_CAPTURE(Variants, two_blocks, kSalt)->Name("gate/variants/2_blocks");

// phase5, ttft_pipeline and qos_policy, each at 50 % (so each hashes, unless phase5 is out), and their metrics.
void Request(benchmark::State& state) {
  static MetricsRegistry metrics;
  static const FlagGate gate(
      *FlagSet::Create({.flags = {HalfOn(std::string(flags::kPhase5)),
                                  HalfOn(std::string(flags::kTtftPipeline), std::string(flags::kPhase5)),
                                  HalfOn(std::string(flags::kQosPolicy), std::string(flags::kPhase5))}},
                       1),
      metrics);
  Keys keys;
  Measure(
      state, [&] { benchmark::DoNotOptimize(gate.Decide({.targeting_key = keys.Next()})); }, /*items=*/3);
}
BENCHMARK(Request)->Name("gate/request")->ThreadRange(1, 2);

void Bucket(benchmark::State& state) {
  Keys keys;
  Measure(state, [&] { benchmark::DoNotOptimize(flags::BucketV2(kSalt, keys.Next())); });
}
BENCHMARK(Bucket)->Name("gate/md5_bucket")->ThreadRange(1, 2);

}  // namespace
}  // namespace sluice::components
