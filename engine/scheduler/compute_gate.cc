#include "engine/scheduler/compute_gate.h"

namespace sluice::engine {

void ComputeGate::Enter() {
  MutexLock lock(mu_);
  const uint64_t ticket = next_ticket_++;
  while (serving_ != ticket) turn_.Wait(mu_);
}

void ComputeGate::Leave() {
  {
    MutexLock lock(mu_);
    ++serving_;
  }
  turn_.SignalAll();
}

bool ComputeGate::Wanted() const {
  MutexLock lock(mu_);
  return next_ticket_ > serving_ + 1;
}

}  // namespace sluice::engine
