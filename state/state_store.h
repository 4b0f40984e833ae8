// What replicas agree on and restarts remember: small entries under names, changed by compare-and-set, with a watch.
// Implementations: `file_store` (embedded, one machine), `etcd/etcd_store` (a cluster).
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
inline constexpr size_t kMaxValueBytes = size_t{1} << 20;

struct Entry {
  std::string key;
  std::string value;      // any bytes
  uint64_t revision = 0;  // the store's revision when it was put
  std::string session;    // that it lives and dies with; empty: it stays

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

// What a process keeps alive: entries that were put under it vanish with it, or, when the process is gone or cut off,
// at the latest some time after it could last be renewed (the store's `ttl`). Destroying it ends it, as far as the
// store can be reached, within a second. A session that was lost never comes back. Thread-safety: thread-safe.
class Session {
 public:
  virtual ~Session() = default;
  virtual std::string id() const = 0;  // as Entry::session
  // Until then the store surely has it, whatever happens to the connection; in the past when it is lost.
  virtual MonoTime alive_until() const = 0;
};

// Another key must still be as it was, or nothing happens: what a leader writes is fenced by the key that made it one.
struct Fence {
  std::string key;
  uint64_t revision = 0;

  bool operator==(const Fence&) const = default;
};

struct PutOptions {
  const Session* session = nullptr;  // of the same store; null: the entry stays
  std::optional<Fence> fence;
};

// Keys are 1 to 512 printable ASCII characters without space; by convention words between slashes ("flags/override/x").
// A revision is a number of the whole store that every change raises by at least one, also across restarts and
// processes. Thread-safety: thread-safe. Every call may block on a disk or a network: not for engine or gRPC threads.
// Errors of every call: UNAVAILABLE (with the cause; after a Put or Delete it is unknown whether it happened),
// DATA_LOSS (the store is damaged; the message says what to do).
class StateStore {
 public:
  virtual ~StateStore() = default;

  // NOT_FOUND when there is no such key.
  virtual absl::StatusOr<Entry> Get(std::string_view key) = 0;

  // The entries whose key begins with `prefix`, all of one moment.
  virtual absl::StatusOr<Listing> List(std::string_view prefix) = 0;

  // Sets the value if the key's revision is `expected` (0: there must be no such key). When it returns, the change
  // survives a crash. Returns the new revision. ABORTED, reason REVISION_CONFLICT, metadata `current_revision`:
  // somebody else was first, or the fence fell (metadata `fence`); INVALID_ARGUMENT: key or value; RESOURCE_EXHAUSTED:
  // the store is full; FAILED_PRECONDITION: the session is lost.
  virtual absl::StatusOr<uint64_t> Put(std::string_view key, std::string_view value, uint64_t expected,
                                       const PutOptions& options) = 0;
  absl::StatusOr<uint64_t> Put(std::string_view key, std::string_view value, uint64_t expected) {
    return Put(key, value, expected, PutOptions());
  }

  // UNAVAILABLE as every call.
  virtual absl::StatusOr<std::unique_ptr<Session>> BeginSession() = 0;

  // Removes the key if its revision is `expected`. Returns the store's new revision. ABORTED as Put.
  virtual absl::StatusOr<uint64_t> Delete(std::string_view key, uint64_t expected) = 0;

  // Calls back before it returns, with everything that matches now, and then after each change, whoever made it; so
  // nothing is lost between a List and a Watch. One call at a time, later ones on a thread of the store. The callback
  // may use the store, but not begin or end a watch.
  [[nodiscard]] virtual std::unique_ptr<Subscription> Watch(std::string_view prefix, WatchCallback callback) = 0;
};

}  // namespace sluice::state
