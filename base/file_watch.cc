#include "base/file_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "base/digest.h"
#include "base/owned_fd.h"
#include "base/path_watches.h"
#include "fmt/format.h"

namespace sluice {
namespace {

// What is compared: size and digest of the content, or why there is none.
std::string LookAt(const std::string& path, uint64_t compare_bytes) {
  const OwnedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // not blocked by a pipe
  struct stat about {};
  if (!file.valid() || fstat(file.get(), &about) != 0) return std::strerror(errno);
  if (!S_ISREG(about.st_mode)) return "not a regular file";
  std::string content(std::min(compare_bytes, static_cast<uint64_t>(about.st_size)), '\0');
  size_t size = 0;
  for (ssize_t n = 0; size < content.size(); size += static_cast<size_t>(n)) {
    n = pread(file.get(), content.data() + size, content.size() - size, static_cast<off_t>(size));
    if (n < 0) return std::strerror(errno);
    if (n == 0) break;  // cut meanwhile: another event follows
  }
  content.resize(size);
  return fmt::format("{} {}", about.st_size, Sha256Hex(content));
}

itimerspec After(Duration first, Duration interval) {
  const auto spec = [](Duration d) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(d);
    return timespec{.tv_sec = static_cast<time_t>(seconds.count()),
                    .tv_nsec = static_cast<long>((d - seconds).count())};
  };
  return {.it_interval = spec(interval), .it_value = spec(std::max(first, Duration(1)))};  // 0 would disarm it
}

}  // namespace

class FileWatch::Impl {
 public:
  Impl(Options options, Callback callback)
      : options_(std::move(options)),
        callback_(std::move(callback)),
        seen_(options_.paths.size()),
        stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        settle_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
        poll_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {}
  ~Impl() {
    if (!thread_.joinable()) return;
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }

  absl::Status Start() {
    if (!stop_.valid() || !settle_.valid() || !poll_.valid()) {
      return absl::ResourceExhaustedError(fmt::format("cannot watch files: {}", std::strerror(errno)));
    }
    Look();
    const itimerspec poll = After(options_.poll, options_.poll);
    timerfd_settime(poll_.get(), 0, &poll, nullptr);
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

 private:
  void Run() {
    enum { kStop, kSettle, kPoll, kEvents, kSources };
    std::array<pollfd, kSources> sources{};
    const std::array<int, kSources> fds = {stop_.get(), settle_.get(), poll_.get(), watches_.fd()};
    for (size_t i = 0; i < kSources; ++i) sources[i] = {.fd = fds[i], .events = POLLIN, .revents = 0};
    bool settling = false;
    while (true) {
      if (poll(sources.data(), sources.size(), -1) < 0) continue;  // EINTR
      if (sources[kStop].revents != 0) return;
      if (sources[kEvents].revents != 0 && watches_.Drain() && !settling) {
        settling = true;
        const itimerspec once = After(options_.settle, Duration(0));
        timerfd_settime(settle_.get(), 0, &once, nullptr);
      }
      if (!Expired(settle_) && !Expired(poll_)) continue;
      settling = false;
      if (const std::vector<std::string> changed = Look(); !changed.empty()) callback_(changed);
    }
  }

  static bool Expired(const OwnedFd& timer) {
    uint64_t count = 0;
    return read(timer.get(), &count, sizeof(count)) == sizeof(count);
  }

  // The watches come first: what changes after the reading is an event.
  std::vector<std::string> Look() {
    watches_.Begin();
    for (const std::string& path : options_.paths) watches_.Follow(path);
    watches_.End();
    std::vector<std::string> changed;
    for (size_t i = 0; i < seen_.size(); ++i) {
      std::string now = LookAt(options_.paths[i], options_.compare_bytes);
      if (now == seen_[i]) continue;
      seen_[i] = std::move(now);
      changed.push_back(options_.paths[i]);
    }
    return changed;
  }

  const Options options_;
  const Callback callback_;
  std::vector<std::string> seen_;
  PathWatches watches_;
  const OwnedFd stop_, settle_, poll_;
  std::thread thread_;
};

FileWatch::FileWatch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FileWatch::~FileWatch() = default;

absl::StatusOr<std::unique_ptr<FileWatch>> FileWatch::Start(Options options, Callback callback) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(callback));
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<FileWatch>(new FileWatch(std::move(impl)));
}

}  // namespace sluice
