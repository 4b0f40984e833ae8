// A cluster that keeps state for replicas with clocks of their own, cut off now and then: for seeded histories.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "state/state_store.h"
#include "state/table.h"
#include "tests/support/manual_clock.h"

namespace sluice::state {

// True time, entries and leases. Single-threaded.
class SimCluster {
 public:
  void Advance(Duration step) {
    now_ += step;
    std::erase_if(leases_, [&](const auto& lease) {
      if (lease.second > now_) return false;
      table_.DropSession(lease.first);
      return true;
    });
  }

  MonoTime now() const { return now_; }
  Table& table() { return table_; }
  std::map<std::string, MonoTime, std::less<>>& leases() { return leases_; }
  std::string NewLease() { return std::to_string(++granted_); }

 private:
  MonoTime now_{std::chrono::seconds(1000)};
  Table table_;
  std::map<std::string, MonoTime, std::less<>> leases_;  // until when
  int granted_ = 0;
};

// A replica's store. Nothing happens by itself: Pump brings news and renews sessions.
class SimClient final : public StateStore {
 public:
  SimClient(SimCluster& cluster, double clock_rate) : cluster_(cluster), clock_rate_(clock_rate) {}

  bool cut = false;
  std::function<bool()> answer_lost = [] { return false; };  // of a commit, asked after it was done

  const Clock& clock() const { return clock_; }
  void Advance(Duration step) {
    clock_.Advance(Duration(static_cast<int64_t>(static_cast<double>(step.count()) * clock_rate_)));
  }

  // Renewals sent by the last Pump arrive now, and new ones are sent.
  void Pump(bool news) {
    for (Live* session : sessions_) {
      const auto lease = cluster_.leases().find(session->name());
      if (!cut && session->sent != MonoTime() && lease != cluster_.leases().end()) {
        lease->second = cluster_.now() + session->ttl;
        if (session->until > clock_.Now()) session->until = session->sent + session->ttl;
      }
      session->sent = cut ? MonoTime() : clock_.Now();
    }
    if (cut || !news) return;
    for (Watcher* watcher : watchers_) watcher->Tell(cluster_.table());
  }

  absl::StatusOr<Entry> Get(std::string_view key) override {
    if (cut) return absl::UnavailableError("cut off");
    return cluster_.table().Get(key);
  }
  absl::StatusOr<Listing> List(std::string_view prefix) override {
    if (cut) return absl::UnavailableError("cut off");
    return cluster_.table().List(prefix);
  }
  absl::StatusOr<uint64_t> Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) override {
    if (cut) return absl::UnavailableError("cut off");
    for (const Change& change : changes) {
      if (change.session != nullptr && !cluster_.leases().contains(change.session->name())) {
        return absl::FailedPreconditionError("the session is over");
      }
    }
    const auto revision = cluster_.table().Commit(changes, fence);
    if (answer_lost()) return absl::UnavailableError("the answer got lost");
    return revision;
  }
  absl::StatusOr<std::unique_ptr<Session>> BeginSession(Duration ttl) override {
    if (cut) return absl::UnavailableError("cut off");
    auto session = std::make_unique<Live>(*this, cluster_.NewLease(), ttl, clock_.Now() + ttl);
    cluster_.leases()[std::string(session->name())] = cluster_.now() + ttl;
    return session;
  }
  std::unique_ptr<Subscription> Watch(std::string_view prefix, WatchCallback callback) override {
    auto watcher = std::make_unique<Watcher>(*this, std::string(prefix), std::move(callback));
    if (!cut) watcher->Tell(cluster_.table());
    return watcher;
  }

 private:
  struct Live final : Session {
    Live(SimClient& o, std::string n, Duration t, MonoTime u) : owner(o), id(std::move(n)), ttl(t), until(u) {
      owner.sessions_.push_back(this);
    }
    ~Live() override {
      std::erase(owner.sessions_, this);
      if (owner.cut) return;  // then its lease runs out
      owner.cluster_.leases().erase(id);
      owner.cluster_.table().DropSession(id);
    }
    std::string_view name() const override { return id; }
    MonoTime alive_until() const override { return until; }

    SimClient& owner;
    const std::string id;
    const Duration ttl;
    MonoTime until, sent{};
  };
  struct Watcher final : Subscription {
    Watcher(SimClient& o, std::string p, WatchCallback c) : owner(o), prefix(std::move(p)), callback(std::move(c)) {
      owner.watchers_.push_back(this);
    }
    ~Watcher() override { std::erase(owner.watchers_, this); }
    void Tell(const Table& now) {
      callback(Difference(&told, now, prefix));
      told = now;
    }

    SimClient& owner;
    const std::string prefix;
    const WatchCallback callback;
    Table told;
  };

  SimCluster& cluster_;
  const double clock_rate_;
  test::ManualClock clock_;
  std::vector<Live*> sessions_;
  std::vector<Watcher*> watchers_;
};

}  // namespace sluice::state
