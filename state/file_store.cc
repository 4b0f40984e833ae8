#include "state/file_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

namespace sluice::state {
namespace {

constexpr Duration kLookForDead = std::chrono::milliseconds(500);
constexpr const char* kFile = "state";
constexpr const char* kTemporary = "state.tmp";
constexpr const char* kPrevious = "state.previous";
// Bounds what a strange file can make us read: content, and a line for each entry.
constexpr size_t kMaxFileBytes = kMaxTotalBytes + kMaxKeys * 64 + 4096;

// An exclusive flock, as long as it lives.
class FolderLock {
 public:
  explicit FolderLock(int fd) : fd_(fd) {
    while (flock(fd_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      error_ = errno;
      return;
    }
  }
  ~FolderLock() {
    if (error_ == 0) flock(fd_, LOCK_UN);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  bool ok() const { return error_ == 0; }

 private:
  const int fd_;
  int error_ = 0;
};

// The first `size` bytes of the file, or as many as there are; false: errno says why.
bool ReadBytes(int fd, size_t size, std::string& bytes) {
  bytes.resize(size);
  size_t have = 0;
  while (have < size) {
    const ssize_t n = pread(fd, bytes.data() + have, size - have, static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  bytes.resize(have);
  return true;
}

bool WriteBytes(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

FileStore::FileStore(std::string folder, OwnedFd directory)
    : folder_(std::move(folder)),
      directory_(std::move(directory)),
      sessions_(directory_.get()),
      hub_([this] { return Load(); }) {}

absl::StatusOr<std::unique_ptr<FileStore>> FileStore::Open(const std::string& folder) {
  const auto failed = [&folder](int error) {
    const std::string text = fmt::format("cannot use the folder '{}' for state: {}", folder, std::strerror(error));
    return error == EACCES || error == EPERM || error == EROFS ? absl::PermissionDeniedError(text)
                                                               : absl::UnavailableError(text);
  };
  const std::filesystem::path path(folder);
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return failed(errno);
  OwnedFd directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || faccessat(directory.get(), ".", W_OK | X_OK, 0) != 0) return failed(errno);

  auto store = std::unique_ptr<FileStore>(new FileStore(folder, std::move(directory)));
  FileWatch::Options options{.paths = {(path / kFile).string()},
                             .settle = std::chrono::milliseconds(2),
                             .poll = std::chrono::seconds(2),
                             .compare_bytes = Table::kHeaderBytes};
  FileStore* const self = store.get();
  SLUICE_ASSIGN_OR_RETURN(
      store->watch_, FileWatch::Start(std::move(options), [self](const auto& /*changed*/) { self->hub_.Notify(); }));
  SLUICE_RETURN_IF_ERROR(store->Load().status());
  store->undertaker_ = std::thread([self] { self->LookForDeadSessions(); });
  return store;
}

FileStore::~FileStore() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  stop_.SignalAll();
  if (undertaker_.joinable()) undertaker_.join();
}

absl::Status FileStore::Damaged(const absl::Status& status) const {
  return absl::DataLossError(fmt::format(
      "the state file '{0}/{1}' {2}. Nothing was changed. Put a good copy in its place: a backup, or '{0}/{3}' "
      "as it was before the last change; or remove both to begin with nothing",
      folder_, kFile, std::string(status.message()), kPrevious));
}

absl::Status FileStore::Failed(std::string_view what) const {
  return absl::UnavailableError(fmt::format("cannot {} in '{}': {}", what, folder_, std::strerror(errno)));
}

absl::StatusOr<std::shared_ptr<const Table>> FileStore::Load() {
  MutexLock lock(mu_);
  return LoadLocked();
}

absl::StatusOr<std::shared_ptr<const Table>> FileStore::LoadLocked() {
  const OwnedFd file(openat(directory_.get(), kFile, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat about {};
  if (!file.valid()) {
    if (errno != ENOENT) return Failed("read the state file");
    // A change leaves `state.previous` only where it also leaves `state`: somebody took it away.
    if (cached_ != nullptr && cached_->revision() == 0) return cached_;
    if (cached_ != nullptr || fstatat(directory_.get(), kPrevious, &about, 0) == 0) {
      return Damaged(absl::DataLossError("is missing"));
    }
    cached_ = std::make_shared<const Table>();
    return cached_;
  }
  if (fstat(file.get(), &about) != 0) return Failed("read the state file");
  const auto size = static_cast<size_t>(about.st_size);
  if (!S_ISREG(about.st_mode) || size > kMaxFileBytes) {
    return Damaged(absl::DataLossError(fmt::format("is not a regular file of at most {} bytes", kMaxFileBytes)));
  }
  std::string text;
  if (!ReadBytes(file.get(), Table::kHeaderBytes, text)) return Failed("read the state file");
  if (cached_ != nullptr && text == header_) return cached_;
  std::string header = std::move(text);
  if (!ReadBytes(file.get(), size, text)) return Failed("read the state file");
  absl::StatusOr<Table> table = Table::Decode(text);
  if (!table.ok()) return Damaged(table.status());
  header_ = std::move(header);
  cached_ = std::make_shared<const Table>(*std::move(table));
  return cached_;
}

absl::StatusOr<Entry> FileStore::Get(std::string_view key) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Table> table, Load());
  return table->Get(key);
}

absl::StatusOr<Listing> FileStore::List(std::string_view prefix) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Table> table, Load());
  return table->List(prefix);
}

absl::StatusOr<uint64_t> FileStore::Write(const std::function<absl::StatusOr<uint64_t>(Table&)>& change) {
  MutexLock lock(mu_);
  const FolderLock exclusive(directory_.get());
  if (!exclusive.ok()) return Failed("lock the state");
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Table> before, LoadLocked());
  Table next = *before;
  bool dropped = false;
  for (const std::string& session : next.Sessions()) {
    if (!sessions_.Alive(session)) dropped |= next.DropSession(session);
  }
  const absl::StatusOr<uint64_t> revision = change ? change(next) : next.revision();
  if (!dropped && (!change || !revision.ok())) return revision;
  const std::string text = next.Encode();
  SLUICE_RETURN_IF_ERROR(Save(text));
  header_ = text.substr(0, Table::kHeaderBytes);
  cached_ = std::make_shared<const Table>(std::move(next));
  return revision;
}

absl::Status FileStore::Save(const std::string& text) {
  const int folder = directory_.get();
  const OwnedFd file(openat(folder, kTemporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid() || !WriteBytes(file.get(), text) || fsync(file.get()) != 0) return Failed("write the state file");
  // A second name for the present content, which so never has none.
  if (unlinkat(folder, kPrevious, 0) != 0 && errno != ENOENT) return Failed("replace the previous state file");
  if (linkat(folder, kFile, folder, kPrevious, 0) != 0 && errno != ENOENT)
    return Failed("keep the previous state file");
  if (renameat(folder, kTemporary, folder, kFile) != 0 || fsync(folder) != 0) return Failed("replace the state file");
  return {};
}

absl::StatusOr<uint64_t> FileStore::Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) {
  return Write([&](Table& table) -> absl::StatusOr<uint64_t> {
    for (const Change& change : changes) {
      if (change.session != nullptr && !sessions_.Alive(std::string(change.session->name()))) {
        return absl::FailedPreconditionError(
            fmt::format("the session of '{}' is over: its file in '{}' is gone", change.key, folder_));
      }
    }
    return table.Commit(changes, fence);
  });
}

class FileStore::FileSession final : public Session {
 public:
  FileSession(FileStore& store, SessionFiles::Held held) : store_(store), held_(std::move(held)) {}
  ~FileSession() override {
    held_.lock = OwnedFd();
    // What cannot be written now, the next one to look does.
    if (store_.Write(nullptr).ok()) store_.sessions_.Remove(held_.name);
  }
  std::string_view name() const override { return held_.name; }
  MonoTime alive_until() const override { return kInfiniteFuture; }

 private:
  FileStore& store_;
  SessionFiles::Held held_;
};

absl::StatusOr<std::unique_ptr<Session>> FileStore::BeginSession(Duration /*ttl*/) {
  MutexLock lock(mu_);
  const FolderLock exclusive(directory_.get());
  if (!exclusive.ok()) return Failed("lock the state");
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Table> table, LoadLocked());
  sessions_.RemoveLeft(table->Sessions());
  SLUICE_ASSIGN_OR_RETURN(SessionFiles::Held held, sessions_.Begin(table->revision()));
  return std::make_unique<FileSession>(*this, std::move(held));
}

void FileStore::LookForDeadSessions() {
  while (true) {
    const absl::StatusOr<std::shared_ptr<const Table>> table = Load();
    if (table.ok() && !(*table)->Sessions().empty()) (void)Write(nullptr);  // a fault is told by watches and calls
    MutexLock lock(mu_);
    if (!stopping_) stop_.WaitFor(mu_, kLookForDead);
    if (stopping_) return;
  }
}

std::unique_ptr<Subscription> FileStore::Watch(std::string_view prefix, WatchCallback callback) {
  return hub_.Add(prefix, std::move(callback));
}

}  // namespace sluice::state
