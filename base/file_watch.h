// Reports when the content of files changes: plain writes, an editor's rename over the file, files that appear or go,
// and symbolic links that are turned elsewhere anywhere on the path (the `..data` of a Kubernetes ConfigMap).
//
// How: inotify(7) on every folder and link that the path leads through, followed anew after each event. An event only
// asks for a look; what was read decides, so a rewrite with the same bytes is silent. Where inotify tells nothing
// (network file systems, memory-mapped writes, no watches left) the poll finds the change.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice {

// Thread-safety: create and destroy on any thread but its own; it has one thread.
class FileWatch {
 public:
  struct Options {
    // Need not exist. Relative paths are meant from the working directory of the moment.
    std::vector<std::string> paths;
    // From the first event to the look, so that a burst of events is one look. A storm of writes is seen at this pace,
    // and its last content always.
    Duration settle = std::chrono::milliseconds(50);
    Duration poll = std::chrono::seconds(10);
    // Files are compared by size and by this many first bytes.
    uint64_t compare_bytes = uint64_t{4} << 20;
  };
  // `changed`: those of `paths`, in their order, whose content, or the reason why there is none, is another than at the
  // last look. On the watch's own thread, one call at a time; it must not destroy the watch.
  using Callback = std::function<void(const std::vector<std::string>& changed)>;

  // Blocks for one look at every file; whatever changes after it began is reported. So: start the watch, then load.
  // RESOURCE_EXHAUSTED when the system has no file descriptors left.
  static absl::StatusOr<std::unique_ptr<FileWatch>> Start(Options options, Callback callback);

  // Stops at once, except that it waits for a running callback.
  ~FileWatch();

 private:
  class Impl;
  explicit FileWatch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
