// What replicas agree on and restarts remember: small entries under names, changed by compare-and-set, with a watch,
// and sessions, whose entries vanish with the process that made them.
// Implementations: `file_store` (embedded, one machine), `etcd/etcd_store` (replicas on many machines).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice::state {

inline constexpr size_t kMaxKeyBytes = 512;
inline constexpr size_t kMaxValueBytes = size_t{1} << 20;  // also of all values of one commit
inline constexpr size_t kMaxChanges = 64;                  // of one commit
inline constexpr Duration kMinSessionTtl = std::chrono::seconds(2), kMaxSessionTtl = std::chrono::hours(1);

struct Entry {
  std::string key;
  std::string value;         // any bytes
  uint64_t revision = 0;     // the store's revision when it was put
  std::string session = {};  // name of the session it belongs to; empty: none

  bool operator==(const Entry&) const = default;
};

struct Listing {
  uint64_t revision = 0;       // of the whole store, at least every entry's
  std::vector<Entry> entries;  // by key
};

// The way from one revision of the store to a later one. States between the two may be skipped.
struct Changes {
  uint64_t revision = 0;
  std::vector<Entry> put;            // by key; never older than what was told about the key before
  std::vector<std::string> deleted;  // by key
};

// An error: the store cannot be read now, the last known state is stale. The next Changes, which may be empty, ends it.
using WatchCallback = std::function<void(const absl::StatusOr<Changes>& changes)>;

// A running watch; destroying it waits for a running callback and ends it. It may outlive the store.
class Subscription {
 public:
  virtual ~Subscription() = default;
};

// What a process keeps alive. Entries put under it vanish when it is destroyed, or within about a second of the end of
// its ttl, counted from when it could last be renewed; the store renews it until then. A lost session never comes back:
// begin another. Destroying it may block as a call does, and must come before the store's end. Thread-safety:
// thread-safe.
class Session {
 public:
  virtual ~Session() = default;
  virtual std::string_view name() const = 0;  // no other session of the store ever has it
  // The store surely keeps its entries until then: the last acknowledged renewal's *sending* plus the ttl.
  // kInfiniteFuture: as long as this process lives. In the past: lost, or soon. Never blocks.
  virtual MonoTime alive_until() const = 0;
};

// That a key, as a rule another one than those that change, still has this revision (0: is not there).
struct Fence {
  std::string key;
  uint64_t revision = 0;

  bool operator==(const Fence&) const = default;
};

struct PutOptions {
  const Session* session = nullptr;  // of this store; null: the entry stays until it is deleted
  std::optional<Fence> fence = std::nullopt;
};

// One of a commit's changes.
struct Change {
  std::string key;
  std::optional<std::string> value;  // nullopt: the key is deleted
  uint64_t expected = 0;             // the revision that the key has; 0: there must be no such key
  const Session* session = nullptr;  // as PutOptions'
};

// Keys are 1 to 512 printable ASCII characters without space; by convention words between slashes ("flags/override/x").
// A revision is a number of the whole store that every change raises by at least one, also across restarts and
// processes. Thread-safety: thread-safe. Every call may block on a disk or a network: not for engine or gRPC threads.
// Errors of every call: UNAVAILABLE (with the cause; after a change it is unknown whether it happened),
// DATA_LOSS (the store is damaged; the message says what to do).
// An entry's `session` tells whether a change under it happened after all.
class StateStore {
 public:
  virtual ~StateStore() = default;

  // NOT_FOUND when there is no such key.
  virtual absl::StatusOr<Entry> Get(std::string_view key) = 0;

  // The entries whose key begins with `prefix`, all of one moment.
  virtual absl::StatusOr<Listing> List(std::string_view prefix) = 0;

  // Does all changes or none, if each key has its `expected` revision and `fence` holds. When it returns, the changes
  // survive a crash. Returns the new revision, which is that of each entry put. ABORTED, reason REVISION_CONFLICT:
  // somebody else was first; metadata `key` and `current_revision`, or `fence_key` and `current_revision` when it is
  // the fence that does not hold. FAILED_PRECONDITION: the session is over. INVALID_ARGUMENT: keys, values, none or too
  // many changes, two of the same key. RESOURCE_EXHAUSTED: the store is full.
  virtual absl::StatusOr<uint64_t> Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) = 0;

  // A Commit of one change.
  absl::StatusOr<uint64_t> Put(std::string_view key, std::string_view value, uint64_t expected,
                               const PutOptions& options = {});
  absl::StatusOr<uint64_t> Delete(std::string_view key, uint64_t expected,
                                  const std::optional<Fence>& fence = std::nullopt);

  // `ttl` is clamped to kMinSessionTtl and kMaxSessionTtl; a store may grant more.
  virtual absl::StatusOr<std::unique_ptr<Session>> BeginSession(Duration ttl) = 0;

  // Calls back before it returns, with everything that matches now, and then after each change, whoever made it; so
  // nothing is lost between a List and a Watch. One call at a time, later ones on a thread of the store. The callback
  // may use the store, but not begin or end a watch.
  [[nodiscard]] virtual std::unique_ptr<Subscription> Watch(std::string_view prefix, WatchCallback callback) = 0;
};

}  // namespace sluice::state
