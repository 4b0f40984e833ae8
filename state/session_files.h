// The sessions of a file store: a file each, `session.NAME`, locked by the process that lives.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace sluice::state {

// Thread-safety: thread-safe. Alive, Begin and RemoveLeft only under the folder's lock: a look at another session takes
// its lock for a moment, and must not be taken for a life.
class SessionFiles {
 public:
  explicit SessionFiles(int folder) : folder_(folder) {}  // a descriptor, not owned

  struct Held {
    std::string name;
    OwnedFd lock;  // the session lives as long as it is open
  };
  // Names are "REVISION.NUMBER": `revision` is the store's, so that no session that ever had an entry gives its name to
  // a later one. UNAVAILABLE with the cause.
  absl::StatusOr<Held> Begin(uint64_t revision) const;

  // Does its process live? In doubt it does.
  bool Alive(const std::string& name) const;

  // Removes the files of dead sessions, except those named: their entries are still there.
  void RemoveLeft(const std::set<std::string>& with_entries) const;
  void Remove(const std::string& name) const;

 private:
  const int folder_;
};

}  // namespace sluice::state
