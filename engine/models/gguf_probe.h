// Keeps hostile model files away from the server: each unseen file (by SHA-256) is loaded once in a child process under
// resource limits. Verdicts are remembered in `cache_dir` by hash, so that a known file costs one hash.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"

namespace sluice::engine {

struct GgufProbeOptions {
  std::string executable;  // run as `executable probe-model PATH`
  std::string cache_dir;   // empty: remember in memory only
  uint64_t max_memory_bytes = 0;  // address space of the child; 0: 4 × file size + 2 GiB
  Duration timeout = std::chrono::seconds(120);
};

// Blocks for the probe's duration. Thread-safe. NOT_FOUND; INVALID_ARGUMENT (MODEL_FILE_INVALID, with the child's
// reason, or "crashed with signal N"); DEADLINE_EXCEEDED.
absl::Status ProbeGguf(const std::string& path, const GgufProbeOptions& options);

}  // namespace sluice::engine
