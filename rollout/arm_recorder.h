// Counts, on one replica, what happened to the requests of a rollout's two arms, window by window.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "rollout/analysis/window.h"

namespace sluice::rollout {

// One request that ended. By the *assigned* arm, whatever served it.
struct Settled {
  Arm arm = Arm::kBaseline;
  bool failed = false;  // by our fault; client faults and cancels are never given here
  uint64_t user = 0;    // hash of the targeting key
  int prompt_tokens = 0;
  Duration ttft{}, latency{};  // of one that did not fail
  std::string_view request_id;
};

// Thread-safety: thread-safe; a short lock, no allocation but for new users and sketch buckets.
class ArmRecorder {
 public:
  // In one window each user is one event: sticky users come in clusters, and a heavy one would look like many.
  static constexpr size_t kMaxUsers = 1 << 16;  // known per window and arm; beyond, requests are no events
  static constexpr size_t kMaxKnown = 1 << 18;  // per attempt; beyond, nobody is a first user any more
  static constexpr size_t kMaxExamples = 8;     // ids of failed requests of the canary

  // The canary's failures in a row that trip; 0, as at the beginning: never.
  void TripAfter(int failures_in_a_row) ABSL_LOCKS_EXCLUDED(mu_);
  void Record(const Settled& settled) ABSL_LOCKS_EXCLUDED(mu_);

  // Bytes that requests of an arm hold now: +n at the start, -n at the end.
  void Hold(Arm arm, int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // Requests that were in flight when the process died before.
  void Crashed(Arm arm, uint64_t requests) ABSL_LOCKS_EXCLUDED(mu_);

  // What happened since the last Cut; counts begin anew. The caller fills in what the recorder cannot know.
  Window Cut() ABSL_LOCKS_EXCLUDED(mu_);

  // The canary failed so many times in a row on this replica, since the last Reset.
  bool tripped() const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::string> examples() const ABSL_LOCKS_EXCLUDED(mu_);
  // A new attempt: forgets all but the bytes held.
  void Reset() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable Mutex mu_;  // leaf
  int failures_in_a_row_ ABSL_GUARDED_BY(mu_) = 0;
  Window window_ ABSL_GUARDED_BY(mu_);
  std::array<absl::flat_hash_set<uint64_t>, kArms> users_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<uint64_t> known_ ABSL_GUARDED_BY(mu_);
  std::array<int64_t, kArms> held_bytes_ ABSL_GUARDED_BY(mu_) = {};
  int row_ ABSL_GUARDED_BY(mu_) = 0;
  bool tripped_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::string> examples_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::rollout
