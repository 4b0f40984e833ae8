// Ends the thread of a watch or a session, and the call that it waits for.
#pragma once

#include <grpcpp/client_context.h>

#include "base/mutex.h"

namespace sluice::state::etcd {

// Thread-safety: thread-safe.
class Stopper {
 public:
  void Stop() ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    stopped_ = true;
    if (call_ != nullptr) call_->TryCancel();
    wake_.SignalAll();
  }
  bool stopped() const ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return stopped_;
  }
  // Waits for as long, or less. False: stopped.
  bool WaitFor(Duration time) ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    if (!stopped_ && time > Duration::zero()) wake_.WaitFor(mu_, time);
    return !stopped_;
  }

  // The call that Stop cancels, as long as this lives.
  class Watching {
   public:
    Watching(Stopper* stopper, grpc::ClientContext& call) : stopper_(stopper) { Set(&call); }
    ~Watching() { Set(nullptr); }
    Watching(const Watching&) = delete;
    Watching& operator=(const Watching&) = delete;

   private:
    void Set(grpc::ClientContext* call) {
      if (stopper_ == nullptr) return;
      MutexLock lock(stopper_->mu_);
      stopper_->call_ = call;
      if (call != nullptr && stopper_->stopped_) call->TryCancel();
    }
    Stopper* const stopper_;
  };

 private:
  mutable Mutex mu_;
  CondVar wake_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mu_) = nullptr;
};

}  // namespace sluice::state::etcd
