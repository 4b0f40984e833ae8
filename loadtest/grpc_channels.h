// What the gRPC targets share: connections, credentials, and what a status means.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// `options.connections` channels to the host of `options.url`, each with a TCP connection of its own.
// INVALID_ARGUMENT when the CA file cannot be read.
absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> OpenChannels(const TargetOptions& options);

// Deadline, bearer token, x-request-id and the headers of the options.
void PrepareContext(const TargetOptions& options, const Request& request, grpc::ClientContext& context);

// Same code, the message as it is.
absl::Status ToAbslStatus(const grpc::Status& status);

// Waits until a connection stands or is refused. UNAVAILABLE saying what was tried; CANCELLED soon after `stop`.
absl::Status WaitForChannel(grpc::Channel& channel, const std::string& url, Duration timeout,
                            const std::atomic<bool>& stop);

// How often something that waits looks whether it shall stop.
inline constexpr auto kStopInterval = std::chrono::milliseconds(100);

// One unary call, begun by `start(queue)` with `context`; cancelled soon after `stop`.
template <typename Answer, typename Start>
grpc::Status CallUntil(const std::atomic<bool>& stop, grpc::ClientContext& context, Start start, Answer* answer) {
  grpc::CompletionQueue queue;
  const auto call = start(&queue);
  grpc::Status status;
  call->Finish(answer, &status, &queue);
  void* tag = nullptr;
  bool ok = false;
  while (queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kStopInterval) ==
         grpc::CompletionQueue::TIMEOUT) {
    if (stop.load(std::memory_order_relaxed)) context.TryCancel();
  }
  return status;
}

// The calls that a target has under way; its destructor waits for their end, so it is a target's last member: had a
// call the last reference to a channel, gRPC 1.51 would end in its own thread. Thread-safe. `Call` has Cancel().
template <typename Call>
class CallRegistry {
 public:
  ~CallRegistry() {
    MutexLock lock(mutex_);
    while (active_ > 0) idle_.Wait(mutex_);
  }
  void Add(Call* call) {
    MutexLock lock(mutex_);
    calls_.insert(call);
    ++active_;
  }
  void CancelAll() {
    MutexLock lock(mutex_);
    for (Call* call : calls_) call->Cancel();
  }
  // Deletes the call and then says so. The target may be on its way out: nothing of it is touched afterwards.
  void End(Call* call, const std::function<void()>& done) {
    {
      MutexLock lock(mutex_);
      calls_.erase(call);
    }
    delete call;
    done();
    MutexLock lock(mutex_);
    if (--active_ == 0) idle_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar idle_;
  std::set<Call*> calls_ ABSL_GUARDED_BY(mutex_);  // those that can still be cancelled
  int active_ ABSL_GUARDED_BY(mutex_) = 0;         // those that may hold a channel
};

}  // namespace sluice::loadtest
