// One store and the connections of several replicas to it, which can be cut; sessions end by a clock that tests move.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "state/state_store.h"
#include "state/table.h"

namespace sluice::rollout {

// Everything runs on the test's thread.
class SimStore {
 public:
  static constexpr Duration kTtl = std::chrono::seconds(5);
  explicit SimStore(const Clock& clock) : clock_(clock) {}

  class Connection;
  std::unique_ptr<Connection> Connect() { return std::make_unique<Connection>(*this); }

  // Ends the sessions that were not renewed in time, and tells the watches of connections that are not cut.
  void Run();
  void SetDown(bool down) { down_ = down; }
  const state::Table& table() const { return table_; }
  // Each put that happened, by the connection that made it.
  std::function<void(const Connection* by, const state::Entry& put)> on_put;

 private:
  const Clock& clock_;
  state::Table table_;
  bool down_ = false;
  int sessions_ = 0;
  std::map<std::string, MonoTime> alive_;  // session → when it ends
  std::vector<Connection*> connections_;
};

class SimStore::Connection final : public state::StateStore {
 public:
  explicit Connection(SimStore& store) : store_(store) { store_.connections_.push_back(this); }
  ~Connection() override { std::erase(store_.connections_, this); }

  void SetCut(bool cut) { cut_ = cut; }
  std::function<void()> on_call;  // of Commit, before it does anything: what happens while the store hangs

  absl::StatusOr<state::Entry> Get(std::string_view key) override {
    if (Gone()) return absl::UnavailableError("cut off");
    return store_.table_.Get(key);
  }
  absl::StatusOr<state::Listing> List(std::string_view prefix) override {
    if (Gone()) return absl::UnavailableError("cut off");
    return store_.table_.List(prefix);
  }
  absl::StatusOr<uint64_t> Commit(const std::vector<state::Change>& changes,
                                  const std::optional<state::Fence>& fence) override {
    if (on_call) std::exchange(on_call, nullptr)();
    if (Gone()) return absl::UnavailableError("cut off");
    for (const state::Change& change : changes) {
      if (change.session != nullptr && !store_.alive_.contains(std::string(change.session->name()))) {
        return absl::FailedPreconditionError("the session is over");
      }
    }
    auto committed = store_.table_.Commit(changes, fence);
    for (const state::Change& change : changes) {
      if (committed.ok() && change.value && store_.on_put) store_.on_put(this, *store_.table_.Get(change.key));
    }
    return committed;
  }
  absl::StatusOr<std::unique_ptr<state::Session>> BeginSession(Duration /*ttl*/) override {
    if (Gone()) return absl::UnavailableError("cut off");
    auto session = std::make_unique<SimSession>(*this, std::to_string(++store_.sessions_));
    sessions_.insert(session.get());
    store_.alive_[session->id_] = session->until_ = store_.clock_.Now() + kTtl;
    return session;
  }
  [[nodiscard]] std::unique_ptr<state::Subscription> Watch(std::string_view prefix,
                                                           state::WatchCallback callback) override {
    const int id = ++watch_ids_;
    watches_.push_back({id, std::string(prefix), std::move(callback), nullptr, false});
    Tell();
    return std::make_unique<SimSubscription>(*this, id);
  }

  // Renews its sessions and tells its watches, unless it is cut.
  void Run() {
    for (SimSession* const session : sessions_) {
      if (!Gone() && store_.alive_.contains(session->id_)) {
        store_.alive_[session->id_] = session->until_ = store_.clock_.Now() + kTtl;
      }
    }
    Tell();
  }

 private:
  class SimSession final : public state::Session {
   public:
    SimSession(Connection& connection, std::string id) : connection_(connection), id_(std::move(id)) {}
    ~SimSession() override {
      connection_.sessions_.erase(this);
      if (connection_.Gone()) return;
      connection_.store_.alive_.erase(id_);
      connection_.store_.table_.DropSession(id_);
    }
    std::string_view name() const override { return id_; }
    MonoTime alive_until() const override { return until_; }

    Connection& connection_;
    const std::string id_;
    MonoTime until_;
  };
  struct SimSubscription final : state::Subscription {
    SimSubscription(Connection& of, int number) : connection(of), id(number) {}
    ~SimSubscription() override {
      std::erase_if(connection.watches_, [this](const OneWatch& watch) { return watch.id == id; });
    }
    Connection& connection;
    const int id;
  };
  struct OneWatch {
    int id;
    std::string prefix;
    state::WatchCallback callback;
    std::shared_ptr<const state::Table> told;
    bool failed;
  };
  bool Gone() const { return cut_ || store_.down_; }
  void Tell() {
    for (OneWatch& watch : watches_) {
      if (Gone()) {
        if (!watch.failed) watch.callback(absl::UnavailableError("cut off"));
        watch.failed = true;
        continue;
      }
      if (!watch.failed && watch.told != nullptr && watch.told->revision() == store_.table_.revision()) continue;
      auto now = std::make_shared<const state::Table>(store_.table_);
      watch.callback(state::Difference(watch.told.get(), *now, watch.prefix));
      watch.told = std::move(now);
      watch.failed = false;
    }
  }

  SimStore& store_;
  bool cut_ = false;
  int watch_ids_ = 0;
  std::set<SimSession*> sessions_;
  std::vector<OneWatch> watches_;
};

inline void SimStore::Run() {
  for (Connection* const connection : connections_) connection->Run();
  for (auto it = alive_.begin(); it != alive_.end();) {
    if (it->second > clock_.Now()) {
      ++it;
      continue;
    }
    table_.DropSession(it->first);
    it = alive_.erase(it);
  }
}

}  // namespace sluice::rollout
