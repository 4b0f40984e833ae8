// A StateStore in memory, for tests of what uses one.
#pragma once

#include <memory>
#include <string_view>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "state/state_store.h"
#include "state/table.h"
#include "state/watch_hub.h"

namespace sluice::test {

// Watches hear of changes on its thread, as a real store's do.
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

  absl::StatusOr<state::Entry> Get(std::string_view key) override {
    const auto table = Load();
    return table.ok() ? (*table)->Get(key) : table.status();
  }
  absl::StatusOr<state::Listing> List(std::string_view prefix) override {
    const auto table = Load();
    if (!table.ok()) return table.status();
    return (*table)->List(prefix);
  }
  using StateStore::Put;
  absl::StatusOr<uint64_t> Put(std::string_view key, std::string_view value, uint64_t expected,
                               const state::PutOptions& options) override {
    return Write([&](state::Table& table) { return table.Put(key, value, expected, options); });
  }
  absl::StatusOr<std::unique_ptr<state::Session>> BeginSession() override {
    MutexLock lock(mu_);
    if (!fault_.ok()) return fault_;
    return std::make_unique<MemorySession>(*this, std::to_string(++sessions_));
  }
  absl::StatusOr<uint64_t> Delete(std::string_view key, uint64_t expected) override {
    return Write([&](state::Table& table) { return table.Delete(key, expected); });
  }
  [[nodiscard]] std::unique_ptr<state::Subscription> Watch(std::string_view prefix,
                                                           state::WatchCallback callback) override {
    return hub_.Add(prefix, std::move(callback));
  }

 private:
  class MemorySession final : public state::Session {
   public:
    MemorySession(MemoryStore& store, std::string id) : store_(store), id_(std::move(id)) {}
    ~MemorySession() override {
      (void)store_.Write([this](state::Table& table) {
        table.EndSession(id_);
        return absl::StatusOr<uint64_t>(table.revision());
      });
    }
    std::string id() const override { return id_; }
    MonoTime alive_until() const override { return kInfiniteFuture; }

   private:
    MemoryStore& store_;
    const std::string id_;
  };

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
  int sessions_ ABSL_GUARDED_BY(mu_) = 0;
  bool news_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  state::WatchHub hub_;
  std::thread thread_;
};

}  // namespace sluice::test
