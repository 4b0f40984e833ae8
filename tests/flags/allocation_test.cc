// The gate allocates nothing for a request. Counts operator new of this thread, for the whole test binary.
// (noinline: else gcc sees malloc behind new and free behind delete, and warns of a mismatch.)
#include <cstdlib>
#include <new>
#include <string>

#include "flags/flag_gate.h"
#include "gtest/gtest.h"

namespace {
thread_local int allocations = 0;
}

[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace sluice::flags {
namespace {

TEST(AllocationTest, CounterCounts) {
  const int before = allocations;
  delete new std::string(100, 'x');
  EXPECT_EQ(allocations, before + 2);
}

TEST(AllocationTest, DecidingAllocatesNothing) {
  Flag phase5{.key = std::string(kPhase5), .enabled = true, .rollout_bps = 9000};
  Flag ttft{.key = std::string(kTtftPipeline), .enabled = true, .rollout_bps = 5000, .parent = phase5.key};
  ttft.features = {{"a_feature_with_a_long_name_beyond_any_small_string", true}};
  MetricsRegistry metrics;
  FlagGate gate(*FlagSet::Create({.flags = {phase5, ttft}}, 1), metrics);
  const std::string long_key(500, 'k');
  int in = 0;

  const int before = allocations;
  for (int i = 0; i < 1000; ++i) {
    const std::string_view key = std::string_view(long_key).substr(static_cast<size_t>(i) % 500);
    const RequestDecisions d = gate.Decide({.targeting_key = key});
    in += d.snapshot->FeatureOn(d.ttft_pipeline, "a_feature_with_a_long_name_beyond_any_small_string");
    in += d.snapshot->Evaluate("a_flag_that_nobody_has_ever_heard_of_at_all", {.targeting_key = key}).in;
  }
  EXPECT_EQ(allocations, before);
  EXPECT_GT(in, 0);
}

}  // namespace
}  // namespace sluice::flags
