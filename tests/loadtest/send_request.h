// One request to a target, waited for.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "gtest/gtest.h"
#include "loadtest/target.h"

namespace sluice::test {

// Requests under way; its records stay where they are. Thread-safe.
class Sent {
 public:
  ~Sent() { Wait(); }
  loadtest::Record& Start(loadtest::Target& target, loadtest::Request request) {
    loadtest::Record* record = nullptr;
    {
      MutexLock lock(mutex_);
      records_.push_back(std::make_unique<loadtest::Record>());
      record = records_.back().get();
      ++running_;
    }
    target.Start(std::move(request), record, [this] {
      MutexLock lock(mutex_);
      --running_;
      changed_.SignalAll();
    });
    return *record;
  }
  bool idle() {
    MutexLock lock(mutex_);
    return running_ == 0;
  }
  void Wait() {
    MutexLock lock(mutex_);
    while (running_ > 0) changed_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<loadtest::Record>> records_ ABSL_GUARDED_BY(mutex_);
};

inline loadtest::Record Send(loadtest::Target& target, loadtest::Request request) {
  Sent sent;
  const loadtest::Record& record = sent.Start(target, std::move(request));
  sent.Wait();
  return record;
}

// Everything that holds of the times of any record.
inline void ExpectOrderedTimes(const loadtest::Record& record) {
  int64_t last = record.sent_ns;
  EXPECT_GE(last, 0);
  for (const int64_t at : record.token_ns) {
    EXPECT_GE(at, last);
    last = at;
  }
  EXPECT_GE(record.done_ns, last);
}

}  // namespace sluice::test
