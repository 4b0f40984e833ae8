#include "state/session_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "fmt/format.h"

namespace sluice::state {
namespace {

constexpr std::string_view kPrefix = "session.";
constexpr int kMostInARow = 10'000;  // sessions that begin at one revision

std::string FileOf(const std::string& name) { return std::string(kPrefix) + name; }

}  // namespace

absl::StatusOr<SessionFiles::Held> SessionFiles::Begin(uint64_t revision) const {
  for (int number = 0; number < kMostInARow; ++number) {
    Held held{.name = fmt::format("{}.{}", revision, number), .lock = OwnedFd()};
    const std::string file = FileOf(held.name);
    held.lock = OwnedFd(openat(folder_, file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!held.lock.valid() && errno == EEXIST) continue;
    if (held.lock.valid() && flock(held.lock.get(), LOCK_EX | LOCK_NB) == 0) return held;
    return absl::UnavailableError(fmt::format("cannot begin a session in '{}': {}", file, std::strerror(errno)));
  }
  return absl::UnavailableError(
      fmt::format("cannot begin a session: {} files '{}{}.*' are there", kMostInARow, kPrefix, revision));
}

bool SessionFiles::Alive(const std::string& name) const {
  const OwnedFd file(openat(folder_, FileOf(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid()) return errno != ENOENT;
  return flock(file.get(), LOCK_SH | LOCK_NB) != 0;
}

void SessionFiles::RemoveLeft(const std::set<std::string>& with_entries) const {
  const int again = openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const listing = again < 0 ? nullptr : fdopendir(again);
  if (listing == nullptr) return;
  std::vector<std::string> dead;
  while (const dirent* item = readdir(listing)) {
    const std::string_view file(item->d_name);
    if (!file.starts_with(kPrefix)) continue;
    std::string name(file.substr(kPrefix.size()));
    if (!with_entries.contains(name) && !Alive(name)) dead.push_back(std::move(name));
  }
  closedir(listing);
  for (const std::string& name : dead) Remove(name);
}

void SessionFiles::Remove(const std::string& name) const { unlinkat(folder_, FileOf(name).c_str(), 0); }

}  // namespace sluice::state
