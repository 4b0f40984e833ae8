// The embedded state store: one file in a folder of a local file system, shared by all processes of one machine.
//
// A change writes the whole content to `state.tmp`, syncs it, renames it over `state` and syncs the folder, under an
// exclusive flock(2) of the folder; so `state` is always whole, and as old as the last change that returned. The copy
// before the last change stays as `state.previous`. Readers take no lock. A file whose checksum does not match is
// never used: every call says DATA_LOSS and what to do, until an operator has chosen.
//
// A session is a file `session.NAME` under an flock of its own, which the kernel gives back when the process dies,
// however it dies. Every open store looks for sessions whose lock is free, and deletes their entries.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file_watch.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "state/session_files.h"
#include "state/state_store.h"
#include "state/table.h"
#include "state/watch_hub.h"

namespace sluice::state {

// A change costs the time to write and sync everything stored: meant for kilobytes that change rarely, bounded at
// 10,000 keys and 64 MiB. Watches hear of a change within milliseconds, where inotify is missing within 2 seconds.
// A commit waits for a writer of another process as long as that takes. The entries of a dead session are gone within
// about a second where another process has the store open, and for whoever commits or opens it next; a session's ttl
// means nothing here: a process that hangs keeps its sessions.
class FileStore final : public StateStore {
 public:
  // Creates the folder (mode 0700) when it is missing; starts two threads. DATA_LOSS as above; UNAVAILABLE or
  // PERMISSION_DENIED with the folder and the system's reason.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(const std::string& folder);
  ~FileStore() override;

  absl::StatusOr<Entry> Get(std::string_view key) override;
  absl::StatusOr<Listing> List(std::string_view prefix) override;
  absl::StatusOr<uint64_t> Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) override;
  absl::StatusOr<std::unique_ptr<Session>> BeginSession(Duration ttl) override;
  [[nodiscard]] std::unique_ptr<Subscription> Watch(std::string_view prefix, WatchCallback callback) override;

 private:
  class FileSession;
  FileStore(std::string folder, OwnedFd directory);

  absl::StatusOr<std::shared_ptr<const Table>> Load() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<const Table>> LoadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Damaged(const absl::Status& status) const;
  absl::Status Failed(std::string_view what) const;
  // Deletes what belongs to dead sessions and then does `change`, if there is one, under the folder's lock.
  absl::StatusOr<uint64_t> Write(const std::function<absl::StatusOr<uint64_t>(Table&)>& change)
      ABSL_LOCKS_EXCLUDED(mu_);
  void LookForDeadSessions() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Save(const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string folder_;
  const OwnedFd directory_;
  const SessionFiles sessions_;
  Mutex mu_;  // a leaf; held over file operations, since threads of one process share the flock
  std::string header_ ABSL_GUARDED_BY(mu_);  // of the file that cached_ was read from
  std::shared_ptr<const Table> cached_ ABSL_GUARDED_BY(mu_);
  WatchHub hub_;
  CondVar stop_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<FileWatch> watch_;  // stops before the others go
  std::thread undertaker_;            // likewise
};

}  // namespace sluice::state
