// Keeps what a watch was told, and waits for it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "gtest/gtest.h"
#include "state/state_store.h"

namespace sluice::state {

// Thread-safe. Fails the test where what it is told breaks the contract's order.
class WatchLog {
 public:
  WatchCallback Callback() {
    return [this](const absl::StatusOr<Changes>& changes) { Add(changes); };
  }

  // Waits until the values known from the watch are these.
  void Await(const std::map<std::string, std::string>& values) {
    MutexLock lock(mu_);
    while (values_ != values) {
      ASSERT_TRUE(told_.WaitFor(mu_, std::chrono::seconds(20)))
          << testing::PrintToString(values_) << " should become " << testing::PrintToString(values);
    }
  }
  void AwaitFault(absl::StatusCode code) {
    MutexLock lock(mu_);
    while (fault_.code() != code) ASSERT_TRUE(told_.WaitFor(mu_, std::chrono::seconds(20))) << fault_;
  }
  size_t calls() {
    MutexLock lock(mu_);
    return calls_;
  }

 private:
  void Add(const absl::StatusOr<Changes>& changes) {
    MutexLock lock(mu_);
    ++calls_;
    told_.SignalAll();
    fault_ = changes.status();
    if (!changes.ok()) return;
    EXPECT_GE(changes->revision, revision_);
    revision_ = changes->revision;
    for (const Entry& entry : changes->put) {
      EXPECT_GT(entry.revision, revisions_[entry.key]) << entry.key << " was told twice or backwards";
      EXPECT_LE(entry.revision, revision_);
      revisions_[entry.key] = entry.revision;
      values_[entry.key] = entry.value;
    }
    for (const std::string& key : changes->deleted) EXPECT_EQ(values_.erase(key), 1u) << key << " was never there";
  }

  Mutex mu_;
  CondVar told_;
  std::map<std::string, std::string> values_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> revisions_ ABSL_GUARDED_BY(mu_);
  uint64_t revision_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status fault_ ABSL_GUARDED_BY(mu_);
  size_t calls_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sluice::state
