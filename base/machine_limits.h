// What this process may use, as the kernel limits it: containers see the host's numbers otherwise.
#pragma once

#include <cstdint>

namespace sluice {

// CPUs: min(affinity mask, cgroup v2 cpu.max rounded up); at least 1. Thread-safe.
int UsableCpus();

// Bytes: min(physical memory, cgroup v2 memory.max). Thread-safe.
uint64_t MemoryLimitBytes();

}  // namespace sluice
