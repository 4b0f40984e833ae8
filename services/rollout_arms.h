// Which arm of which rollout a request is in, and what became of it: between the way of a request and rollout/.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "flags/flag_gate.h"
#include "rollout/arm_recorder.h"
#include "rollout/crash_journal.h"

namespace sluice::services {

// The flags that a rollout can raise: those that every request asks for, so that both arms are seen.
inline constexpr std::array<std::string_view, 3> kRolloutFlags = {flags::kPhase5, flags::kTtftPipeline,
                                                                  flags::kQosPolicy};

// Thread-safety: thread-safe; a short lock for each rollout that watches the request, none when there is no rollout.
class RolloutArms {
 public:
  // `journal` may be null; it outlives this. It keeps the arm of the first of kRolloutFlags that is watched.
  explicit RolloutArms(rollout::CrashJournal* journal) : journal_(journal) {}

  // Whether requests of the flag (an index of kRolloutFlags) count now.
  void Watch(size_t flag, bool on) { watched_[flag].store(on, std::memory_order_relaxed); }
  rollout::ArmRecorder& recorder(size_t flag) { return recorders_[flag]; }

  // A request's part in the rollouts. Begun once, ended once.
  struct Part {
    std::array<int8_t, kRolloutFlags.size()> arm = {-1, -1, -1};  // -1: in none
    int64_t bytes = 0;
    int slot = -1;  // of the journal
    bool begun = false;
  };
  // Counts only those that the rollout's own percentage sorted: no allow lists, overrides, emergencies.
  // `bytes`: what the request may hold until its end.
  Part Begin(const flags::RequestDecisions& decisions, int64_t bytes);
  // It left so much behind, for ever.
  void Leak(const Part& part, int64_t bytes);

  enum class Fate { kServed, kFailed, kNotCounted };  // not counted: client faults, cancels, refusals
  struct End {
    Fate fate = Fate::kNotCounted;
    bool ttft_was_forced_off = false;  // assigned to ttft, served by baseline: a failure of that canary
    uint64_t user = 0;                 // hash of the targeting key
    int prompt_tokens = 0;
    Duration ttft{}, latency{};
    std::string_view request_id;
  };
  void Finish(Part& part, const End& end);

 private:
  rollout::CrashJournal* const journal_;
  std::array<rollout::ArmRecorder, kRolloutFlags.size()> recorders_;
  std::array<std::atomic<bool>, kRolloutFlags.size()> watched_ = {};  // atomic: the control thread writes
};

}  // namespace sluice::services
