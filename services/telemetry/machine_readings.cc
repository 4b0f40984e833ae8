#include "services/telemetry/machine_readings.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <utility>

#include "base/machine_limits.h"
#include "base/mutex.h"
#include "base/thread_name.h"

namespace sluice::services {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();
constexpr Duration kSmoothing = std::chrono::seconds(2);  // until a step of the CPU share shows to 63 %
constexpr std::array<std::string_view, 3> kEngineNames = {kEngineThread, kComputeThread, kLoaderThread};

// Small files of the kernel; an empty text when there is none. A thread may end between the opening of its file and the
// reading of it: an extractor turns what then fails in the buffer into a state, an iterator would throw.
std::string Text(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  in >> text.rdbuf();
  return std::move(text).str();
}

// nullopt: no such file, or no number ("max").
std::optional<uint64_t> Number(const fs::path& path) {
  const std::string text = Text(path);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end != text.data() ? std::optional(value) : std::nullopt;
}

// The number after `key` at the beginning of a line: "VmRSS:   123 kB", "inactive_file 123".
std::optional<uint64_t> Field(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    std::istringstream rest(line.substr(key.size()));
    uint64_t value = 0;
    if (rest >> value) return value;
  }
  return std::nullopt;
}

struct CpuTimes {
  std::string name;
  uint64_t ticks = 0;  // user and system
};

// A stat file of a process or thread. Its name stands in brackets and may hold anything, brackets too.
std::optional<CpuTimes> ReadCpu(const fs::path& path) {
  const std::string text = Text(path);
  const size_t open = text.find('('), close = text.rfind(')');
  if (open == text.npos || close == text.npos || close < open) return std::nullopt;
  std::istringstream rest(text.substr(close + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) rest >> skipped;
  uint64_t user = 0, system = 0;
  if (!(rest >> user >> system)) return std::nullopt;
  return CpuTimes{text.substr(open + 1, close - open - 1), user + system};
}

struct Memory {
  uint64_t used = 0, limit = kNoLimit;
};

// The process's control group in `root`, and each above it: any of them may be the one with the limit. In a container
// the path of /proc/self/cgroup may not exist below `root`; then `root` itself is the group.
template <typename Read>
void ForEachGroup(const fs::path& root, const std::string& path, const Read& read) {
  fs::path group = path;
  for (; group.has_relative_path(); group = group.parent_path()) {
    const fs::path folder = root / group.relative_path();
    std::error_code error;
    if (fs::exists(folder, error)) read(folder);
  }
  read(root);
}

struct Groups {
  std::string v2, v1_memory;  // paths; empty: not in one
};
Groups ReadGroups(const fs::path& proc) {
  Groups groups;
  std::istringstream lines(Text(proc / "self" / "cgroup"));  // "4:memory,hugetlb:/path", "0::/path"
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers == ",,") groups.v2 = line.substr(second + 1);
    if (controllers.find(",memory,") != std::string::npos) groups.v1_memory = line.substr(second + 1);
  }
  return groups;
}

// Of the group whose limit is the nearest.
Memory ReadGroupMemory(const MachineOptions& options, const Groups& groups) {
  Memory tightest;
  double highest = -1;
  const auto weigh = [&](std::optional<uint64_t> used, std::optional<uint64_t> limit, std::optional<uint64_t> cache) {
    if (!used || !limit || *limit == 0) return;
    const Memory memory{.used = *used - std::min(*used, cache.value_or(0)), .limit = *limit};
    const double share = static_cast<double>(memory.used) / static_cast<double>(memory.limit);
    if (share <= highest) return;
    highest = share;
    tightest = memory;
  };
  if (!groups.v1_memory.empty()) {
    ForEachGroup(fs::path(options.cgroups) / "memory", groups.v1_memory, [&](const fs::path& group) {
      weigh(Number(group / "memory.usage_in_bytes"), Number(group / "memory.limit_in_bytes"),
            Field(Text(group / "memory.stat"), "total_inactive_file "));
    });
  }
  ForEachGroup(options.cgroups, groups.v2, [&](const fs::path& group) {
    weigh(Number(group / "memory.current"), Number(group / "memory.max"),
          Field(Text(group / "memory.stat"), "inactive_file "));
  });
  return tightest;
}

double Share(uint64_t part, uint64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

}  // namespace

struct MachineReadings::Impl {
  void ReadMemory(MachineReading* out);
  void ReadFiles(MachineReading* out) const;
  // CPU seconds of threads other than the engine's since the last call; nullopt: not known.
  std::optional<double> OtherCpuSeconds() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void ReadCpu(MonoTime now, MachineReading* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  const MachineOptions options;
  const Clock& clock;
  const double ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  const int cpus = options.cpus > 0 ? options.cpus : UsableCpus();

  Mutex mu;  // held while reading, so that two callers do not read at once
  std::optional<MonoTime> read_at ABSL_GUARDED_BY(mu);
  MachineReading reading ABSL_GUARDED_BY(mu);
  std::optional<uint64_t> process_ticks ABSL_GUARDED_BY(mu);         // threads that ended included
  std::map<std::string, uint64_t> engine_ticks ABSL_GUARDED_BY(mu);  // by thread id
  std::optional<double> smooth_cpu ABSL_GUARDED_BY(mu);
  std::array<std::optional<double>, qos::kResourceCount> injected ABSL_GUARDED_BY(mu);
};

void MachineReadings::Impl::ReadMemory(MachineReading* out) {
  const Memory group = ReadGroupMemory(options, ReadGroups(options.proc));
  const uint64_t resident = Field(Text(fs::path(options.proc) / "self" / "status"), "VmRSS:").value_or(0) * 1024;
  uint64_t physical = Field(Text(fs::path(options.proc) / "meminfo"), "MemTotal:").value_or(0) * 1024;
  if (physical == 0) physical = kNoLimit;
  uint64_t limit = std::min(physical, group.limit);
  if (options.memory_limit_bytes > 0) limit = std::min(limit, options.memory_limit_bytes);
  if (limit == kNoLimit || limit == 0 || (resident == 0 && group.used == 0)) return;
  out->memory_limit_bytes = limit;
  out->memory_bytes = resident;
  // What the group uses counts against the group's own limit: other processes are in it, but its end is ours, too.
  if (group.limit != kNoLimit && Share(group.used, group.limit) > Share(resident, limit)) {
    out->memory_bytes = group.used;
    out->memory_limit_bytes = group.limit;
  }
  out->pressure[static_cast<size_t>(qos::Resource::kMemory)] = Share(out->memory_bytes, out->memory_limit_bytes);
}

void MachineReadings::Impl::ReadFiles(MachineReading* out) const {
  const fs::path self = fs::path(options.proc) / "self";
  double& pressure = out->pressure[static_cast<size_t>(qos::Resource::kFileDescriptors)];
  std::error_code error;
  fs::directory_iterator entry(self / "fd", error);
  if (error == std::errc::too_many_files_open) pressure = 1;          // not even one is left to look
  const auto limit = Field(Text(self / "limits"), "Max open files");  // soft, then hard
  if (error || !limit || *limit == 0) return;
  int open = 0;
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) ++open;
  out->open_files = open;
  out->max_open_files = static_cast<int>(std::min<uint64_t>(*limit, std::numeric_limits<int>::max()));
  pressure = static_cast<double>(open) / static_cast<double>(*limit);
}

std::optional<double> MachineReadings::Impl::OtherCpuSeconds() {
  const fs::path self = fs::path(options.proc) / "self";
  const auto process = services::ReadCpu(self / "stat");
  if (!process) return std::nullopt;
  uint64_t engine_delta = 0;
  std::map<std::string, uint64_t> engine_now;
  std::error_code error;
  for (fs::directory_iterator task(self / "task", error); !error && task != fs::directory_iterator();
       task.increment(error)) {
    const auto thread = services::ReadCpu(task->path() / "stat");
    if (!thread || std::find(kEngineNames.begin(), kEngineNames.end(), thread->name) == kEngineNames.end()) continue;
    const std::string id = task->path().filename().string();
    const auto before = engine_ticks.find(id);
    const uint64_t from = before == engine_ticks.end() ? 0 : std::min(before->second, thread->ticks);
    engine_delta += thread->ticks - from;
    engine_now[id] = thread->ticks;
  }
  engine_ticks = std::move(engine_now);
  const std::optional<uint64_t> last = std::exchange(process_ticks, process->ticks);
  if (!last) return std::nullopt;
  const uint64_t delta = process->ticks - std::min(process->ticks, *last);
  return static_cast<double>(delta - std::min(delta, engine_delta)) / ticks_per_second;
}

void MachineReadings::Impl::ReadCpu(MonoTime now, MachineReading* out) {
  const std::optional<double> seconds = OtherCpuSeconds();
  const double elapsed = read_at ? ToSeconds(now - *read_at) : 0;
  if (!seconds || elapsed <= 0) return;
  const double share = std::min(*seconds / elapsed / cpus, 1.0);
  const double weight = smooth_cpu ? 1 - std::exp(-elapsed / ToSeconds(kSmoothing)) : 1;
  smooth_cpu = smooth_cpu.value_or(0) * (1 - weight) + share * weight;
  out->pressure[static_cast<size_t>(qos::Resource::kCpu)] = *smooth_cpu;
}

MachineReadings::MachineReadings(MachineOptions options, const Clock& clock)
    : impl_(new Impl{.options = std::move(options), .clock = clock}) {}

MachineReadings::~MachineReadings() = default;

MachineReading MachineReadings::Read() {
  MutexLock lock(impl_->mu);
  const MonoTime now = impl_->clock.Now();
  if (!impl_->read_at || now - *impl_->read_at >= impl_->options.min_interval) {
    MachineReading fresh;
    impl_->ReadMemory(&fresh);
    impl_->ReadFiles(&fresh);
    impl_->ReadCpu(now, &fresh);
    impl_->reading = fresh;
    impl_->read_at = now;
  }
  MachineReading out = impl_->reading;
  for (size_t i = 0; i < out.pressure.size(); ++i) out.pressure[i] = impl_->injected[i].value_or(out.pressure[i]);
  return out;
}

void MachineReadings::Inject(qos::Resource resource, std::optional<double> share) {
  MutexLock lock(impl_->mu);
  impl_->injected[static_cast<size_t>(resource)] = share;
}

}  // namespace sluice::services
