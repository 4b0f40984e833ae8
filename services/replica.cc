#include "services/replica.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <system_error>

#include "base/status.h"
#include "fmt/format.h"

namespace sluice::services {
namespace {

absl::StatusOr<std::string> JournalFolder(const std::string& state_folder) {
  std::error_code error;
  if (!state_folder.empty()) {
    std::filesystem::create_directories(state_folder, error);  // opening the journal says what is wrong
    return state_folder;
  }
  const std::string folder =
      fmt::format("{}/sluice-{}", std::filesystem::temp_directory_path(error).string(), geteuid());
  mkdir(folder.c_str(), S_IRWXU);
  struct stat found = {};
  if (lstat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid != geteuid() ||
      (found.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::UnavailableError(fmt::format(
        "{}: is not a folder that only we may write; rollouts need one to see crashes: set state_folder", folder));
  }
  return folder;
}

}  // namespace

std::string ReplicaName(const config::RuntimeConfig& runtime) {
  if (!runtime.replica_id.empty()) return runtime.replica_id;
  std::array<char, 256> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  std::string name = fmt::format("{}:{}", host.data(), runtime.server.grpc_address);
  for (char& c : name) {
    if (c <= ' ' || c == '/' || c == '\x7f') c = '_';
  }
  return name;
}

absl::StatusOr<std::unique_ptr<rollout::CrashJournal>> OpenCrashJournal(const config::RuntimeConfig& runtime,
                                                                        WallTime now) {
  SLUICE_ASSIGN_OR_RETURN(const std::string folder, JournalFolder(runtime.state_folder));
  return rollout::CrashJournal::Open(fmt::format("{}/in-flight.{}", folder, ReplicaName(runtime)), now);
}

}  // namespace sluice::services
