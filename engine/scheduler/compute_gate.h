// One model computes at a time: on a CPU two models stepping together only slow each other's caches and threads down.
#pragma once

#include <cstdint>

#include "base/mutex.h"

namespace sluice::engine {

// Thread-safety: thread-safe. Fair: waiting engines get their turn in order of arrival.
class ComputeGate {
 public:
  // Blocks until this thread's turn.
  void Enter() ABSL_LOCKS_EXCLUDED(mu_);
  void Leave() ABSL_LOCKS_EXCLUDED(mu_);
  // Whether another engine waits for the turn that this one has.
  bool Wanted() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable Mutex mu_;
  CondVar turn_;
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t serving_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sluice::engine
