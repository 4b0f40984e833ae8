#include "engine/models/gguf_probe.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "base/digest.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "fmt/format.h"

namespace sluice::engine {
namespace {

namespace fs = std::filesystem;

absl::Status Invalid(const std::string& path, const std::string& why) {
  return MakeError(Reason::kModelFileInvalid, fmt::format("'{}' is not a usable model file: {}", path, why));
}

struct ChildResult {
  int wait_status = 0;
  bool timed_out = false;
  std::string last_line;
};

std::string LastLine(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  const size_t newline = text.rfind('\n');
  return ReplaceInvalidUtf8(newline == std::string::npos ? text : text.substr(newline + 1));
}

// Reads the child's stderr (its last 4 KiB) until it closes or the timeout passes, then reaps it.
ChildResult Collect(pid_t child, int fd, Duration timeout) {
  ChildResult result;
  std::string tail;
  SystemClock clock;
  const MonoTime end = SaturatingAdd(clock.Now(), timeout);
  for (;;) {
    const Duration left = end - clock.Now();
    if (left <= Duration::zero()) {
      result.timed_out = true;
      kill(child, SIGKILL);
      break;
    }
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(fd, &readable);
    timeval wait{.tv_sec = 0, .tv_usec = 200'000};
    if (select(fd + 1, &readable, nullptr, nullptr, &wait) <= 0) continue;
    std::array<char, 4096> buffer{};
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n <= 0) break;
    tail.append(buffer.data(), static_cast<size_t>(n));
    if (tail.size() > 8192) tail.erase(0, tail.size() - 4096);
  }
  waitpid(child, &result.wait_status, 0);
  result.last_line = LastLine(std::move(tail));
  return result;
}

// The limits are set by a shell-free trampoline: the child itself applies them from its arguments before it touches the
// file (sluice-server probe-model PATH MAX_BYTES MAX_SECONDS).
absl::StatusOr<ChildResult> RunProbe(const std::string& path, const GgufProbeOptions& o, uint64_t max_memory) {
  std::array<int, 2> pipe_fds{};
  if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0) return absl::InternalError("pipe2 failed");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 2);
  const std::string memory = std::to_string(max_memory);
  const std::string seconds = std::to_string(static_cast<long>(ToSeconds(o.timeout)) + 1);
  std::array<const char*, 6> argv = {o.executable.c_str(), "probe-model",   path.c_str(),
                                     memory.c_str(),       seconds.c_str(), nullptr};
  std::array<char*, 1> environment = {nullptr};  // nothing of the server's secrets
  pid_t child = 0;
  const int error =
      posix_spawn(&child, o.executable.c_str(), &actions, nullptr, const_cast<char**>(argv.data()), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_fds[1]);
  if (error != 0) {
    close(pipe_fds[0]);
    return absl::InternalError(fmt::format("cannot start the probe '{}': {}", o.executable, std::strerror(error)));
  }
  ChildResult result = Collect(child, pipe_fds[0], o.timeout);
  close(pipe_fds[0]);
  return result;
}

}  // namespace

// Hashes known to be good, in memory and (when configured) as empty files in the cache folder. Only good verdicts are
// kept: a bad file is probed again, since the reason may have been a limit.
class GgufProbe::KnownGood {
 public:
  bool Contains(const std::string& hash, const std::string& cache_dir) {
    {
      MutexLock lock(mu_);
      if (hashes_.contains(hash)) return true;
    }
    std::error_code ignored;
    return !cache_dir.empty() && fs::exists(fs::path(cache_dir) / ("gguf-ok-" + hash), ignored);
  }
  void Add(const std::string& hash, const std::string& cache_dir) {
    MutexLock lock(mu_);
    if (hashes_.size() < kMaxRemembered) hashes_.insert(hash);
    if (cache_dir.empty()) return;
    std::error_code ignored;  // a cache that cannot be written costs a probe at the next start, nothing more
    fs::create_directories(cache_dir, ignored);
    std::ofstream(fs::path(cache_dir) / ("gguf-ok-" + hash));
  }

 private:
  static constexpr size_t kMaxRemembered = 1024;
  Mutex mu_;
  std::set<std::string> hashes_ ABSL_GUARDED_BY(mu_);
};

GgufProbe::GgufProbe(GgufProbeOptions options)
    : options_(std::move(options)), known_good_(std::make_unique<KnownGood>()) {}

GgufProbe::~GgufProbe() = default;

absl::Status GgufProbe::Check(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return MakeError(Reason::kModelFileNotFound, fmt::format("there is no model file '{}'", path));
  }
  const uint64_t size = fs::file_size(path, error);
  SLUICE_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(path));
  if (known_good_->Contains(hash, options_.cache_dir)) return absl::OkStatus();

  const uint64_t max_memory = options_.max_memory_bytes > 0 ? options_.max_memory_bytes : 4 * size + (2ULL << 30);
  SLUICE_ASSIGN_OR_RETURN(const ChildResult result, RunProbe(path, options_, max_memory));
  if (result.timed_out) {
    return MakeError(Reason::kModelProbeTimeout,
                     fmt::format("probing '{}' took longer than {} s", path, ToSeconds(options_.timeout)));
  }
  if (WIFSIGNALED(result.wait_status)) {
    return Invalid(path, fmt::format("loading it crashed with signal {} ({}); {}", WTERMSIG(result.wait_status),
                                     strsignal(WTERMSIG(result.wait_status)), result.last_line));
  }
  if (WEXITSTATUS(result.wait_status) != 0) {
    return Invalid(path, result.last_line.empty() ? "the loader refused it" : result.last_line);
  }
  known_good_->Add(hash, options_.cache_dir);
  return absl::OkStatus();
}

int RunUnderLimits(uint64_t max_memory_bytes, uint64_t max_seconds) {
  const rlimit memory{.rlim_cur = max_memory_bytes, .rlim_max = max_memory_bytes};
  const rlimit cpu{.rlim_cur = max_seconds, .rlim_max = max_seconds};
  const rlimit core{.rlim_cur = 0, .rlim_max = 0};
  const rlimit file{.rlim_cur = 0, .rlim_max = 0};
  return setrlimit(RLIMIT_AS, &memory) | setrlimit(RLIMIT_CPU, &cpu) | setrlimit(RLIMIT_CORE, &core) |
         setrlimit(RLIMIT_FSIZE, &file);
}

}  // namespace sluice::engine
