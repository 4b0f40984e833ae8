// Which requests were in flight when the process died: a small memory-mapped file that outlives it, so that a crash is
// charged to the arm that was served.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "rollout/analysis/window.h"

namespace sluice::rollout {

// Thread-safety: thread-safe, lock-free. The pages belong to the kernel's cache, so kill -9 and aborts lose nothing;
// a power failure may.
class CrashJournal {
 public:
  static constexpr size_t kSlots = 4096;  // requests in flight beyond them are not in the journal

  // What the process that wrote the file before left in it; empty after an orderly end.
  struct Crash {
    WallTime noticed{};                       // when this process found it
    std::string attempt;                      // that was served, empty: none
    std::array<uint64_t, kArms> in_flight{};  // by arm
    bool orderly = true;
    // When the crash before this one was noticed, if both hit the canary of the same attempt.
    std::optional<WallTime> before;
  };

  // Opens or makes the file, reads what is there, and begins anew. A damaged or foreign file is begun anew and counts
  // as orderly. UNAVAILABLE: the file cannot be made.
  static absl::StatusOr<std::unique_ptr<CrashJournal>> Open(const std::string& path, WallTime now);
  ~CrashJournal();  // an orderly end

  const Crash& previous() const { return previous_; }

  // Which attempt is served from now on; at most 127 bytes are kept.
  void SetAttempt(const std::string& attempt);

  // A request begins; returns its slot for End, or -1 when the journal is full.
  int Begin(Arm arm);
  void End(int slot);

 private:
  struct File;
  CrashJournal(File* file, Crash previous) : file_(file), previous_(std::move(previous)) {}

  File* const file_;  // mapped
  const Crash previous_;
  std::atomic<uint32_t> next_{0};  // where to look for a free slot first; lock-free callers on any thread
};

}  // namespace sluice::rollout
