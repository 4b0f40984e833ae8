// The inotify watches that notice any change of where paths lead, or of the file at their end. For FileWatch.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "base/owned_fd.h"

namespace sluice {

// Thread-safety: one thread at a time. Never blocks, but for the file system.
class PathWatches {
 public:
  // Without inotify (none left) it watches nothing, and says so in the log.
  PathWatches();

  // Readable when Drain has something to read; -1 without inotify.
  int fd() const { return inotify_.get(); }

  // Follow(path) for each path between Begin and End; watches that no path needs any more are dropped. A folder is
  // watched before its entry is looked up, so no change after Follow stays unseen.
  void Begin();
  void Follow(const std::string& path);
  void End();

  // Takes all waiting events. True when one of them concerns a path.
  bool Drain();

 private:
  // Adds `name` to the names that matter in `folder`; an empty name: the file itself.
  void Watch(const std::string& folder, const std::string& name);

  OwnedFd inotify_;
  bool warned_ = false;
  std::map<int, std::set<std::string>> names_;   // by watch descriptor
  std::map<int, std::set<std::string>> before_;  // of the last round, until End
};

}  // namespace sluice
