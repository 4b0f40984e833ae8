#include "rollout/crash_journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/owned_fd.h"
#include "fmt/format.h"

namespace sluice::rollout {

// As it lies in the file. A slot: 0 free, 1 + arm.
struct CrashJournal::File {
  static constexpr uint64_t kMagic = 0x32304A4352534C53;  // "SLSRCJ02", also names the layout
  static constexpr uint32_t kRunning = 1;

  uint64_t magic;
  std::atomic<uint32_t> running;
  char attempt[128];
  char crashed_attempt[128];  // of the last crash that hit a canary
  int64_t crashed_at;         // ns of the wall clock
  std::atomic<uint8_t> slots[kSlots];
};

absl::StatusOr<std::unique_ptr<CrashJournal>> CrashJournal::Open(const std::string& path, WallTime now) {
  const auto fail = [&path](const char* what) {
    return absl::UnavailableError(fmt::format("crash journal {}: {}: {}", path, what, std::strerror(errno)));
  };
  const OwnedFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return fail("cannot be opened");
  if (::ftruncate(fd.get(), sizeof(File)) != 0) return fail("cannot be sized");
  void* const mapped = ::mmap(nullptr, sizeof(File), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return fail("cannot be mapped");
  auto* const file = static_cast<File*>(mapped);
  Crash previous{.noticed = now};
  if (file->magic == File::kMagic && file->running == File::kRunning) {
    previous.orderly = false;
    previous.attempt.assign(file->attempt, ::strnlen(file->attempt, sizeof(file->attempt)));
    for (const std::atomic<uint8_t>& slot : file->slots) {
      const uint8_t value = slot;
      if (value >= 1 && value <= kArms) ++previous.in_flight[value - 1];
    }
  }
  int64_t crashed_at = file->magic == File::kMagic ? file->crashed_at : 0;
  std::array<char, sizeof(File::crashed_attempt)> crashed = {};
  if (crashed_at != 0) std::memcpy(crashed.data(), file->crashed_attempt, crashed.size() - 1);
  if (previous.in_flight[static_cast<size_t>(Arm::kCanary)] > 0 && !previous.attempt.empty()) {
    if (crashed_at != 0 && previous.attempt == crashed.data()) previous.before = WallTime(Duration(crashed_at));
    crashed_at = now.time_since_epoch().count();
    crashed = {};
    std::memcpy(crashed.data(), previous.attempt.data(), std::min(previous.attempt.size(), crashed.size() - 1));
  }
  std::memset(static_cast<void*>(file), 0, sizeof(File));
  file->crashed_at = crashed_at;
  std::memcpy(file->crashed_attempt, crashed.data(), crashed.size());
  file->magic = File::kMagic;
  file->running = File::kRunning;
  return std::unique_ptr<CrashJournal>(new CrashJournal(file, std::move(previous)));
}

CrashJournal::~CrashJournal() {
  file_->running = 0;
  ::munmap(static_cast<void*>(file_), sizeof(File));
}

void CrashJournal::SetAttempt(const std::string& attempt) {
  char text[sizeof(file_->attempt)] = {};
  std::memcpy(text, attempt.data(), std::min(attempt.size(), sizeof(text) - 1));
  std::memcpy(file_->attempt, text, sizeof(text));
}

int CrashJournal::Begin(Arm arm) {
  const uint32_t start = next_.fetch_add(1, std::memory_order_relaxed);
  constexpr size_t kTries = 64;  // bounded: a nearly full journal may leave a request out
  for (size_t i = 0; i < kTries; ++i) {
    const size_t slot = (start + i) % kSlots;
    uint8_t free = 0;
    if (file_->slots[slot].compare_exchange_strong(free, static_cast<uint8_t>(1 + static_cast<uint8_t>(arm)))) {
      return static_cast<int>(slot);
    }
  }
  return -1;
}

void CrashJournal::End(int slot) {
  if (slot >= 0) file_->slots[slot] = 0;
}

}  // namespace sluice::rollout
