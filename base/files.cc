#include "base/files.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "fmt/format.h"

namespace sluice {
namespace {

absl::Status Failed(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("'{}' {}", path, what));
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(fmt::format("'{}' cannot be read: no such file", path));
  }
  if (!std::filesystem::is_regular_file(status)) return Failed(path, "is not a regular file");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return Failed(path, fmt::format("cannot be read: {}", std::strerror(errno)));
  std::string text;
  std::string buffer(size_t{64} << 10, '\0');
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0) {
    text.append(buffer, 0, static_cast<size_t>(file.gcount()));
    if (text.size() > max_bytes) return Failed(path, fmt::format("is larger than {} bytes", max_bytes));
  }
  if (file.bad()) return Failed(path, fmt::format("cannot be read: {}", std::strerror(errno)));
  return text;
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  errno = 0;
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus() : Failed(path, fmt::format("cannot be written: {}", std::strerror(errno)));
}

}  // namespace sluice
