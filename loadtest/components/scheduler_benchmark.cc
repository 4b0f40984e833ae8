// The engine thread's own work: no model, no cost but Sluice's. `per_token` is CPU time.
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/synthetic_backend.h"
#include "engine/pipelines/pipelines.h"
#include "engine/scheduler/engine_core.h"
#include "fmt/format.h"
#include "loadtest/components/measure.h"

namespace sluice::components {
namespace {

using namespace engine;  // NOLINT: the subject

const SystemClock kClock;
constexpr int kEndless = 1 << 28;

void ReportPerToken(benchmark::State& state) {
  state.counters["per_token"] = benchmark::Counter(
      static_cast<double>(state.range(0)), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// The step planner alone: N streams run, and as many prompts wait, half of them in each pipeline.
void Plan(benchmark::State& state) {
  const int streams = static_cast<int>(state.range(0));
  PlanInput input;
  input.decode = {.decode_rows = streams, .context = streams * 160.0};
  input.policies = {{.order = PrefillOrder::kFifo},
                    {.order = PrefillOrder::kShortestUncachedFirst, .ageing_tokens_per_ms = 0.5}};
  input.free_slots = streams;
  for (int i = 0; i < streams; ++i) {
    input.candidates.push_back({.id = i,
                                .policy = i % 2,
                                .needs_slot = true,
                                .uncomputed = 64 + 37 * i % 128,
                                .waited_ms = static_cast<double>(streams - i),
                                .order = static_cast<uint64_t>(i)});
  }
  const StepCost cost;
  Measure(state, [&] { benchmark::DoNotOptimize(PlanStep(input, cost)); });
}
BENCHMARK(Plan)->Name("scheduler/plan")->Arg(1)->Arg(16)->Arg(64)->Arg(100);

// N running streams on the synthetic backend at no cost: plan, "decode", sample greedily from 512 logits, make text,
// push; and take each token from its stream, as a reader would.
void Step(benchmark::State& state) {
  const int streams = static_cast<int>(state.range(0));
  SyntheticBackend backend({.geometry = {.slots = streams, .slot_context = kEndless}}, nullptr);
  MetricsRegistry registry;
  EngineMetrics metrics(registry);
  SchedulerProbe probe(metrics, "m");
  EngineCore core(backend, {}, kClock, probe);
  std::vector<std::shared_ptr<TokenStream>> readers;
  for (int i = 0; i < streams; ++i) {
    const std::string id = fmt::format("stream {}", i);
    readers.push_back(std::make_shared<TokenStream>(256));
    core.Enqueue({.request_id = id,
                  .prompt = *backend.tokenizer().Tokenize(id, false, false),
                  .max_tokens = kEndless / 2,
                  .ignore_eos = true,
                  .submitted = kClock.Now(),
                  .policy = BaselinePolicy()},
                 readers.back());
  }
  const auto step = [&] {
    core.Step();
    for (const auto& reader : readers) benchmark::DoNotOptimize(reader->Take());
  };
  for (int i = 0; i < 100; ++i) step();  // until every prompt is computed
  Measure(state, step, streams);
  ReportPerToken(state);
}
BENCHMARK(Step)->Name("scheduler/step")->Arg(1)->Arg(16)->Arg(64)->Arg(100);

}  // namespace
}  // namespace sluice::components
