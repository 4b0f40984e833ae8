// A StateStore in memory, for tests of what uses one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "state/state_store.h"
#include "state/table.h"
#include "state/watch_hub.h"

namespace sluice::test {

// Watches hear of changes on its thread, as a real store's do. A session lives until it is destroyed, or a test ends
// it.
class MemoryStore final : public state::StateStore {
 public:
  MemoryStore() : hub_([this] { return Load(); }), thread_([this] { Run(); }) {}
  ~MemoryStore() override {
    {
      MutexLock lock(mu_);
      stop_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }

  // While `fault` is not OK every call fails with it, and watches are told.
  void SetFault(absl::Status fault) {
    MutexLock lock(mu_);
    fault_ = std::move(fault);
    news_ = true;
    changed_.SignalAll();
  }

  // As if the process whose session holds `key` had been silent for longer than the ttl.
  void LoseSessionOf(std::string_view key) {
    const auto table = Load();
    const auto entry = table.ok() ? (*table)->Get(key) : table.status();
    if (entry.ok()) EndSession(entry->session);
  }

  absl::StatusOr<state::Entry> Get(std::string_view key) override {
    const auto table = Load();
    return table.ok() ? (*table)->Get(key) : table.status();
  }
  absl::StatusOr<state::Listing> List(std::string_view prefix) override {
    const auto table = Load();
    if (!table.ok()) return table.status();
    return (*table)->List(prefix);
  }
  absl::StatusOr<uint64_t> Commit(const std::vector<state::Change>& changes,
                                  const std::optional<state::Fence>& fence) override {
    return Write([&](state::Table& table) ABSL_NO_THREAD_SAFETY_ANALYSIS -> absl::StatusOr<uint64_t> {
      for (const state::Change& change : changes) {
        if (change.session != nullptr && !sessions_.contains(change.session->name())) {
          return absl::FailedPreconditionError("the session is over");
        }
      }
      return table.Commit(changes, fence);
    });
  }
  absl::StatusOr<std::unique_ptr<state::Session>> BeginSession(Duration /*ttl*/) override {
    MutexLock lock(mu_);
    if (!fault_.ok()) return fault_;
    const std::string name = std::to_string(++begun_);
    sessions_.insert(name);
    return std::make_unique<MemorySession>(*this, name);
  }
  [[nodiscard]] std::unique_ptr<state::Subscription> Watch(std::string_view prefix,
                                                           state::WatchCallback callback) override {
    return hub_.Add(prefix, std::move(callback));
  }

 private:
  class MemorySession final : public state::Session {
   public:
    MemorySession(MemoryStore& store, std::string name) : store_(store), name_(std::move(name)) {}
    ~MemorySession() override { store_.EndSession(name_); }
    std::string_view name() const override { return name_; }
    MonoTime alive_until() const override { return store_.Lives(name_) ? kInfiniteFuture : MonoTime::min(); }

   private:
    MemoryStore& store_;
    const std::string name_;
  };

  bool Lives(const std::string& session) {
    MutexLock lock(mu_);
    return sessions_.contains(session);
  }
  void EndSession(const std::string& session) {
    MutexLock lock(mu_);
    sessions_.erase(session);
    auto next = std::make_shared<state::Table>(*table_);
    if (!next->DropSession(session)) return;
    table_ = std::move(next);
    news_ = true;
    changed_.SignalAll();
  }
  absl::StatusOr<std::shared_ptr<const state::Table>> Load() {
    MutexLock lock(mu_);
    if (!fault_.ok()) return fault_;
    return table_;
  }
  template <typename Change>
  absl::StatusOr<uint64_t> Write(const Change& change) {
    MutexLock lock(mu_);
    if (!fault_.ok()) return fault_;
    auto next = std::make_shared<state::Table>(*table_);
    const absl::StatusOr<uint64_t> revision = change(*next);
    if (revision.ok()) table_ = std::move(next);
    news_ = true;
    changed_.SignalAll();
    return revision;
  }
  void Run() {
    while (true) {
      {
        MutexLock lock(mu_);
        while (!news_ && !stop_) changed_.Wait(mu_);
        if (stop_) return;
        news_ = false;
      }
      hub_.Notify();
    }
  }

  Mutex mu_;
  CondVar changed_;
  std::shared_ptr<const state::Table> table_ ABSL_GUARDED_BY(mu_) = std::make_shared<const state::Table>();
  absl::Status fault_ ABSL_GUARDED_BY(mu_);
  std::set<std::string, std::less<>> sessions_ ABSL_GUARDED_BY(mu_);  // that live
  uint64_t begun_ ABSL_GUARDED_BY(mu_) = 0;
  bool news_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  state::WatchHub hub_;
  std::thread thread_;
};

}  // namespace sluice::test
