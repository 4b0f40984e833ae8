// What every component benchmark reports: time (Google Benchmark's own), items/s, allocations.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

namespace sluice::components {

// Calls of operator new by this thread so far (measure.cc replaces it for the whole binary).
int64_t Allocations();

// The benchmark cannot go on. Google Benchmark itself would still exit with 0: main asks AnyFailed().
void Fail(benchmark::State& state, const char* why);
bool AnyFailed();

// Runs `once` until Google Benchmark is satisfied. `items`: how many things one call handles.
template <typename F>
void Measure(benchmark::State& state, F&& once, int64_t items = 1) {
  const int64_t before = Allocations();
  for ([[maybe_unused]] auto _ : state) once();
  const auto allocations = static_cast<double>(Allocations() - before);
  state.counters["allocs"] = benchmark::Counter(allocations, benchmark::Counter::kAvgIterations);
  state.SetItemsProcessed(state.iterations() * items);
}

}  // namespace sluice::components
