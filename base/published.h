// A value that everybody reads and one replaces now and then, without a lock between readers.
#pragma once

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace sluice {

// std::atomic<std::shared_ptr> of libstdc++ hides a spin lock, so this publishes a plain pointer to a shared_ptr. A
// reader is registered in `readers_` while it follows the pointer; a writer frees old versions only when it sees no
// reader after it has published the new one, else the next Store does. Nobody waits.
//
// Thread-safety: thread-safe; readers never wait for a writer, writers wait for each other. Memory: the current
// version, and older ones until a Store meets no reader.
template <typename T>
class Published {
 public:
  using Version = std::shared_ptr<const T>;

  explicit Published(Version first = nullptr) { Store(std::move(first)); }
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;

  Version Load() const {
    return Read([](const Version& version) { return version; });
  }

  // Calls `use` with the current version, which lives at least as long as the call; spares Load's reference count.
  // `use` must be quick and not throw.
  template <typename Use>
  auto Read(Use&& use) const {
    // Sequentially consistent with Store: whoever reads the old pointer was registered before the writer looked.
    readers_.fetch_add(1);
    auto result = std::forward<Use>(use)(*current_.load());
    readers_.fetch_sub(1);
    return result;
  }

  void Store(Version next) ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    versions_.push_back(std::make_unique<const Version>(std::move(next)));
    current_.store(versions_.back().get());
    if (readers_.load() == 0) versions_.erase(versions_.begin(), versions_.end() - 1);
  }

 private:
  std::atomic<const Version*> current_{nullptr};  // atomic: read by every request; points to versions_.back()
  mutable std::atomic<int> readers_{0};           // atomic: see above
  Mutex mu_;                                      // one writer at a time
  std::vector<std::unique_ptr<const Version>> versions_ ABSL_GUARDED_BY(mu_);  // the current one last
};

}  // namespace sluice
