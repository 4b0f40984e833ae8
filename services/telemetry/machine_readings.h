// How much of the machine does this process use? Memory, CPU without the engine's threads, file descriptors, each as a
// share of what it may use. Read from /proc and the control group (v2, else v1), at most four times a second.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "qos/overload.h"

namespace sluice::services {

struct MachineOptions {
  std::string proc = "/proc";  // other folders: tests
  std::string cgroups = "/sys/fs/cgroup";
  uint64_t memory_limit_bytes = 0;  // zero: the least of physical memory and the limits of the control groups
  int cpus = 0;                     // zero: UsableCpus()
  Duration min_interval = std::chrono::milliseconds(250);
};

struct MachineReading {
  // The larger of the resident memory and the control group's (without page cache that the kernel can drop), against
  // the limit; CPU time of threads other than the engine's, smoothed over some 2 s, against all usable CPUs; open
  // descriptors against the soft limit. Negative: not known.
  qos::Pressure pressure{-1, -1, -1};
  uint64_t memory_bytes = 0, memory_limit_bytes = 0;
  int open_files = 0, max_open_files = 0;
};

// Thread-safety: thread-safe. Blocks for the time of some dozen small reads.
class MachineReadings {
 public:
  MachineReadings(MachineOptions options, const Clock& clock);
  ~MachineReadings();

  // The newest reading; reads again when `min_interval` has passed. CPU is not known before the second reading.
  MachineReading Read();

  // From now on the share of `resource` is this, whatever the machine says: for tests and drills (Envoy's
  // injected_resource). nullopt: the machine's again.
  void Inject(qos::Resource resource, std::optional<double> share);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
