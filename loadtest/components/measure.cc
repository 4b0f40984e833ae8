#include "loadtest/components/measure.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
thread_local int64_t allocations = 0;
std::atomic<bool> any_failed{false};  // atomic: benchmarks may run on several threads
}  // namespace

// noinline: else gcc sees malloc behind new and free behind delete, and warns of a mismatch.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  std::abort();
}
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return operator new(bytes); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace sluice::components {

int64_t Allocations() { return allocations; }

void Fail(benchmark::State& state, const char* why) {
  any_failed = true;
  state.SkipWithError(why);
}

bool AnyFailed() { return any_failed; }

}  // namespace sluice::components
