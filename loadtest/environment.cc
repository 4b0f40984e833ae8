#include "loadtest/environment.h"

#include <sys/utsname.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>

#include "base/machine_limits.h"
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

}  // namespace

std::string UtcTime() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
}

std::map<std::string, std::string> DescribeMachine() {
  std::map<std::string, std::string> e;
  const int cores = UsableCpus();
  const uint64_t memory_mb = MemoryLimitBytes() >> 20;
  utsname name{};
  uname(&name);
  e["cpu"] = FirstLineWith("/proc/cpuinfo", "model name");
  e["cpu_model"] = FirstLineWith("/proc/cpuinfo", "model\t");
  e["cores"] = std::to_string(cores);
  e["memory_limit_mb"] = std::to_string(memory_mb);
  e["kernel"] = fmt::format("{} {}", name.sysname, name.release);
  e["fingerprint"] =
      fmt::format("{} (model {}), {} cores, {} GiB", e["cpu"], e["cpu_model"], cores, (memory_mb + 512) / 1024);
  e["time"] = UtcTime();
  e["commit"] = OutputOf("git rev-parse --short HEAD 2>/dev/null") +
                (OutputOf("git status --porcelain --untracked-files=no 2>/dev/null | head -1").empty() ? "" : "+");
  return e;
}

}  // namespace sluice::loadtest
