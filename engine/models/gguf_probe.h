// Keeps hostile model files away from the server: each unseen file (by SHA-256) is loaded once in a child process under
// resource limits. Verdicts are remembered in `cache_dir` by hash, so that a known file costs one hash.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"

namespace sluice::engine {

struct GgufProbeOptions {
  std::string executable;         // run as `executable probe-model PATH MAX_MEMORY_BYTES MAX_CPU_SECONDS`
  std::string cache_dir;          // empty: remember in memory only
  uint64_t max_memory_bytes = 0;  // address space of the child; 0: 4 × file size + 2 GiB
  Duration timeout = std::chrono::seconds(120);
};

// Thread-safety: thread-safe. Remembers good verdicts (at most 1,024 in memory).
class GgufProbe {
 public:
  explicit GgufProbe(GgufProbeOptions options);
  ~GgufProbe();

  // Blocks for the probe's duration. NOT_FOUND; INVALID_ARGUMENT (MODEL_FILE_INVALID, with the child's reason, or
  // "crashed with signal N"); DEADLINE_EXCEEDED.
  absl::Status Check(const std::string& path);

 private:
  class KnownGood;
  const GgufProbeOptions options_;
  const std::unique_ptr<KnownGood> known_good_;
};

// The child's side: limits this process (address space, CPU time, no core, no file writes). Returns 0 on success.
int RunUnderLimits(uint64_t max_memory_bytes, uint64_t max_seconds);

}  // namespace sluice::engine
