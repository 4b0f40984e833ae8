// The embedded state store: one file in a folder of a local file system, shared by all processes of one machine.
//
// A change writes the whole content to `state.tmp`, syncs it, renames it over `state` and syncs the folder, under an
// exclusive flock(2) of the folder; so `state` is always whole, and as old as the last change that returned. The copy
// before the last change stays as `state.previous`. Readers take no lock. A file whose checksum does not match is
// never used: every call says DATA_LOSS and what to do, until an operator has chosen.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/file_watch.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "state/state_store.h"
#include "state/table.h"
#include "state/watch_hub.h"

namespace sluice::state {

// A change costs the time to write and sync everything stored: meant for kilobytes that change rarely, bounded at
// 10,000 keys and 64 MiB. What lived with a process that died vanishes with the next change that anybody makes or
// tries. Watches hear of a change within milliseconds, where inotify is missing within 2 seconds.
// Put and Delete wait for a writer of another process as long as that takes.
class FileStore final : public StateStore {
 public:
  // Creates the folder (mode 0700) when it is missing; starts one thread. DATA_LOSS as above; UNAVAILABLE or
  // PERMISSION_DENIED with the folder and the system's reason.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(const std::string& folder);

  absl::StatusOr<Entry> Get(std::string_view key) override;
  absl::StatusOr<Listing> List(std::string_view prefix) override;
  using StateStore::Put;
  absl::StatusOr<uint64_t> Put(std::string_view key, std::string_view value, uint64_t expected,
                               const PutOptions& options) override;
  // Lives as long as this process keeps `session.<pid>.<n>` locked, so until it dies: the kernel tells, no clock does.
  absl::StatusOr<std::unique_ptr<Session>> BeginSession() override;
  absl::StatusOr<uint64_t> Delete(std::string_view key, uint64_t expected) override;
  [[nodiscard]] std::unique_ptr<Subscription> Watch(std::string_view prefix, WatchCallback callback) override;

 private:
  FileStore(std::string folder, OwnedFd directory);

  absl::StatusOr<std::shared_ptr<const Table>> Load() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<const Table>> LoadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Damaged(const absl::Status& status) const;
  absl::Status Failed(std::string_view what) const;
  template <typename Change>
  absl::StatusOr<uint64_t> Write(const Change& change) ABSL_LOCKS_EXCLUDED(mu_);
  void EndDeadSessions(Table& table) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Save(const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string folder_;
  const OwnedFd directory_;
  Mutex mu_;  // a leaf; held over file operations, since threads of one process share the flock
  std::string header_ ABSL_GUARDED_BY(mu_);  // of the file that cached_ was read from
  std::shared_ptr<const Table> cached_ ABSL_GUARDED_BY(mu_);
  WatchHub hub_;
  std::unique_ptr<FileWatch> watch_;  // stops before the others go
};

}  // namespace sluice::state
