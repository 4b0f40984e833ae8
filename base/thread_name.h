// Names of threads, as the kernel shows them (/proc/<pid>/task/<tid>/comm, top -H, gdb). A new thread begins with the
// name of the thread that made it.
#pragma once

#include <string>

namespace sluice {

// Who computes for a model; the CPU that they use is no sign of overload (services/telemetry/machine_readings.h).
inline constexpr char kEngineThread[] = "sluice-engine";    // plans, decodes, samples
inline constexpr char kComputeThread[] = "sluice-compute";  // the backend's workers
inline constexpr char kLoaderThread[] = "sluice-loader";    // loads and warms models

// At most 15 bytes. Names the calling thread.
void NameThisThread(const char* name);

// Names the calling thread for as long as it lives, so that threads made meanwhile inherit the name.
class ScopedThreadName {
 public:
  explicit ScopedThreadName(const char* name);
  ~ScopedThreadName();
  ScopedThreadName(const ScopedThreadName&) = delete;
  ScopedThreadName& operator=(const ScopedThreadName&) = delete;

 private:
  std::string before_;
};

}  // namespace sluice
