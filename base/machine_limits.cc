#include "base/machine_limits.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

namespace sluice {

int UsableCpus() {
  cpu_set_t set;
  int cpus = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = std::max(CPU_COUNT(&set), 1);
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // "<quota µs or max> <period µs>"
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) {
    cpus = std::min(cpus, static_cast<int>(std::ceil(std::stod(quota) / period)));
  }
  return std::max(cpus, 1);
}

uint64_t MemoryLimitBytes() {
  uint64_t bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  std::ifstream file("/sys/fs/cgroup/memory.max");
  uint64_t limit = 0;
  if (file >> limit) bytes = std::min(bytes, limit);  // "max" does not parse: no limit
  return bytes;
}

}  // namespace sluice
