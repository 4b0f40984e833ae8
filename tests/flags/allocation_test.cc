// The gate allocates nothing for a request. Counts operator new of this thread, for the whole test binary.
// (noinline: else gcc sees malloc behind new and free behind delete, and warns of a mismatch.)
#include <cstdlib>
#include <new>
#include <string>

#include "flags/flag_gate.h"
#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

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

TEST(AllocationTest, ListsRulesAndVariantsAllocateNothing) {
  Flag flag = On(kTtftPipeline, 5000, kPhase5);
  std::vector<std::string> keys;
  for (int i = 0; i < 10000; ++i) keys.push_back(fmt::format("a-key-beyond-any-small-string-{}", i));
  flag.deny = Keys(keys);
  flag.variants = {Of("a", {{"k", 1}}), Of("b", 2)};
  const auto when = [](Condition::Attribute attribute, Condition::Test test) {
    return Condition{.attribute = attribute,
                     .test = test,
                     .text = "^1.2.0-rc.1",
                     .values = Keys({"x"}),
                     .range = *VersionRange::Parse("^1.2.0-rc.1"),
                     .bps = 5000};
  };
  flag.rules = {{.name = "in", .when = {when(Condition::Attribute::kTenant, Condition::Test::kIn)}},
                {.name = "semver", .when = {when(Condition::Attribute::kUser, Condition::Test::kSemver)}},
                {.name = "percentage",
                 .when = {when(Condition::Attribute::kTenant, Condition::Test::kPercentage)},
                 .then = Rule::Then::kPercentage,
                 .bps = 2000}};
  MetricsRegistry metrics;
  FlagGate gate(Make({.flags = {On(kPhase5, 9000), flag}}), metrics);
  const std::string tenant = "a-tenant-with-a-name-beyond-any-small-string";

  const int before = allocations;
  int in = 0;
  for (const std::string& key : keys) {
    const std::string_view shorter = std::string_view(key).substr(1);
    in += gate.Decide({.targeting_key = shorter, .tenant = tenant, .user = "1.1.0-beta.11"}).ttft_pipeline.in;
    in += gate.Decide({.targeting_key = key}).ttft_pipeline.in;
  }
  EXPECT_EQ(allocations, before);
  EXPECT_GT(in, 0);
}

}  // namespace
}  // namespace sluice::flags
