#include "loadtest/environment.h"

#include <openssl/evp.h>
#include <sched.h>
#include <sys/utsname.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>

#include "fmt/chrono.h"
#include "fmt/format.h"

namespace sluice::loadtest {
namespace {

std::string FirstLineWith(const char* path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t begin = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::string OutputOf(const char* command) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command, "r"), pclose);
  std::array<char, 256> buffer{};
  std::string text;
  while (pipe != nullptr && std::fgets(buffer.data(), buffer.size(), pipe.get()) != nullptr) text += buffer.data();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int64_t MemoryLimitMb() {
  int64_t limit = std::strtoll(FirstLineWith("/proc/meminfo", "MemTotal").c_str(), nullptr, 10) / 1024;
  std::ifstream cgroup("/sys/fs/cgroup/memory.max");
  int64_t bytes = 0;
  if (cgroup >> bytes && bytes > 0) limit = std::min(limit, bytes >> 20);
  return limit;
}

std::string Hex(const unsigned char* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

}  // namespace

std::map<std::string, std::string> DescribeMachine() {
  std::map<std::string, std::string> e;
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  utsname name{};
  uname(&name);
  e["cpu"] = FirstLineWith("/proc/cpuinfo", "model name");
  e["cpu_model"] = FirstLineWith("/proc/cpuinfo", "model\t");
  e["cores"] = std::to_string(cores);
  e["memory_limit_mb"] = std::to_string(MemoryLimitMb());
  e["kernel"] = fmt::format("{} {}", name.sysname, name.release);
  e["fingerprint"] =
      fmt::format("{} (model {}), {} cores, {} GiB", e["cpu"], e["cpu_model"], cores, (MemoryLimitMb() + 512) / 1024);
  e["time"] = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                          fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  e["commit"] = OutputOf("git rev-parse --short HEAD 2>/dev/null") +
                (OutputOf("git status --porcelain --untracked-files=no 2>/dev/null | head -1").empty() ? "" : "+");
  return e;
}

std::string HashOfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return "";
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::string buffer(1 << 20, '\0');
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0) {
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(file.gcount()));
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &size);
  return Hex(digest.data(), size);
}

}  // namespace sluice::loadtest
