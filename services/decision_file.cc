#include "services/decision_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "fmt/format.h"
#include "services/qos_records.h"

namespace sluice::services {
DecisionFile::DecisionFile(const DecisionFileOptions& options, const Clock& clock, MetricsRegistry& metrics)
    : options_(options),
      clock_(clock),
      records_(metrics.AddCounter("sluice_qos_decision_log_records_total",
                                  "Records of the decision log, by what became of them", {"result"})),
      written_(records_.With({"written"})),
      dropped_(records_.With({"dropped"})),
      failed_(records_.With({"failed"})) {}

absl::Status DecisionFile::Open() {
  if (absl::Status opened = OpenFile(); !opened.ok()) return opened;
  worker_ = std::thread([this] { WorkOff(); });
  return absl::OkStatus();
}

DecisionFile::~DecisionFile() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.SignalAll();
  if (worker_.joinable()) worker_.join();
}

absl::Status DecisionFile::OpenFile() {
  // Names of tenants are in it: for this user alone.
  file_ = OwnedFd(open(options_.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  struct stat status {};
  if (!file_.valid() || fstat(file_.get(), &status) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("the decision log '{}' cannot be opened: {}", options_.path, std::strerror(errno)));
  }
  bytes_ = static_cast<uint64_t>(status.st_size);
  Write(EncodeQosStart(clock_.WallNow()) + "\n");
  return absl::OkStatus();
}

void DecisionFile::Recorded(const qos::QosRecord& record) {
  {
    MutexLock lock(mu_);
    if (queue_.size() >= options_.max_queue) {
      dropped_.Add();
      return;
    }
    queue_.push_back(record);
    if (queue_.size() > 1) return;  // the worker knows
  }
  wake_.Signal();
}

void DecisionFile::WorkOff() {
  for (;;) {
    std::deque<qos::QosRecord> records;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stopping_) wake_.Wait(mu_);
      if (queue_.empty()) return;
      records.swap(queue_);
    }
    std::string lines;
    for (const qos::QosRecord& record : records) lines += EncodeQosRecord(record) + "\n";
    if (bytes_ + lines.size() > options_.max_bytes && bytes_ > 0) {
      std::rename(options_.path.c_str(), (options_.path + ".1").c_str());
      if (const absl::Status opened = OpenFile(); !opened.ok()) {
        LogError("decision log", {{"error", std::string(opened.message())}});
      }
    }
    (Write(lines) ? written_ : failed_).Add(records.size());
  }
}

// A torn line can only be the last one of a process: after a failure the file is ended with a line break first.
bool DecisionFile::Write(const std::string& lines) {
  size_t done = 0;
  while (done < lines.size()) {
    const ssize_t n = write(file_.get(), lines.data() + done, lines.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  bytes_ += done;
  return true;
}

}  // namespace sluice::services
