#include "base/path_watches.h"

#include <sys/inotify.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <utility>

#include "base/log.h"

namespace sluice {
namespace {

constexpr int kMaxLinks = 40;  // as the kernel's own limit (path_resolution(7))
// Of a folder: its entries come, go and are replaced, a file in it was written, it is itself moved away.
constexpr uint32_t kFolderEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE | IN_ATTRIB |
                                   IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
// Of the file itself, for one that is mounted alone: its folder does not see writes from outside the mount.
constexpr uint32_t kFileEvents = IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_MASK_ADD;

std::deque<std::string> PartsOf(const std::filesystem::path& path) {
  std::deque<std::string> parts;
  for (const auto& part : path.relative_path()) {
    if (!part.empty() && part != ".") parts.push_back(part.string());
  }
  return parts;
}

}  // namespace

PathWatches::PathWatches() : inotify_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (inotify_.valid()) return;
  warned_ = true;
  LogWarning("no inotify: changes of files are found by polling", {{"cause", std::strerror(errno)}});
}

void PathWatches::Begin() { before_ = std::exchange(names_, {}); }

void PathWatches::End() {
  for (const auto& [descriptor, names] : before_) {
    if (!names_.contains(descriptor)) inotify_rm_watch(inotify_.get(), descriptor);
  }
  before_.clear();
}

void PathWatches::Watch(const std::string& folder, const std::string& name) {
  if (!inotify_.valid()) return;
  const uint32_t events = name.empty() ? kFileEvents : kFolderEvents;
  const int descriptor = inotify_add_watch(inotify_.get(), folder.c_str(), events);
  if (descriptor >= 0) {
    names_[descriptor].insert(name);
  } else if (errno != ENOENT && errno != ENOTDIR && !warned_) {
    warned_ = true;
    LogWarning("a file is watched by polling alone", {{"path", folder}, {"cause", std::strerror(errno)}});
  }
}

void PathWatches::Follow(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  std::filesystem::path at = "/";
  std::deque<std::string> parts = PartsOf(absolute);
  for (int links = 0; !parts.empty();) {
    const std::string part = parts.front();
    parts.pop_front();
    if (part == "..") {
      at = at.parent_path();
      continue;
    }
    Watch(at.string(), part);
    const std::filesystem::path next = at / part;
    struct stat about {};
    if (lstat(next.c_str(), &about) != 0) return;  // its coming is an event of `at`
    if (!S_ISLNK(about.st_mode)) {
      at = next;
      continue;
    }
    const std::filesystem::path target = std::filesystem::read_symlink(next, error);
    if (error || ++links > kMaxLinks) return;
    if (target.is_absolute()) at = "/";
    const std::deque<std::string> rest = PartsOf(target);
    parts.insert(parts.begin(), rest.begin(), rest.end());
  }
  Watch(at.string(), "");
}

bool PathWatches::Drain() {
  if (!inotify_.valid()) return false;
  bool concerned = false;
  alignas(inotify_event) std::array<char, 16384> buffer;
  for (ssize_t size = 0; (size = read(inotify_.get(), buffer.data(), buffer.size())) > 0;) {
    for (const char* at = buffer.data(); at < buffer.data() + size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(at);
      at += sizeof(inotify_event) + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) concerned = true;  // events were lost: look at everything
      const auto found = names_.find(event->wd);
      if (found == names_.end()) continue;
      concerned = concerned || event->len == 0 || found->second.contains(event->name);
    }
  }
  return concerned;
}

}  // namespace sluice
