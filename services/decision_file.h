// Writes the decision log to a file, on a thread of its own.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "qos/decision_log.h"

namespace sluice::services {

struct DecisionFileOptions {
  std::string path;
  uint64_t max_bytes = uint64_t{64} << 20;  // then it is renamed to PATH.1, replacing the one before, and begun anew
  size_t max_queue = 65'536;                // records that wait for the disk; beyond: dropped and counted
};

// Thread-safety: thread-safe. Recorded never blocks on the disk.
class DecisionFile final : public qos::QosObserver {
 public:
  // Metrics: sluice_qos_decision_log_records_total{result} ("written", "dropped", "failed").
  DecisionFile(const DecisionFileOptions& options, const Clock& clock, MetricsRegistry& metrics);
  // Begins to append; before, records wait. INVALID_ARGUMENT: the file cannot be opened (says why). Once.
  absl::Status Open();
  ~DecisionFile() override;  // writes what waits

  void Recorded(const qos::QosRecord& record) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status OpenFile();
  void WorkOff() ABSL_LOCKS_EXCLUDED(mu_);
  bool Write(const std::string& lines);

  const DecisionFileOptions options_;
  const Clock& clock_;
  Family<Counter>& records_;
  Counter &written_, &dropped_, &failed_;
  OwnedFd file_;        // the worker's, once it runs
  uint64_t bytes_ = 0;  // likewise

  Mutex mu_;  // leaf lock
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<qos::QosRecord> queue_ ABSL_GUARDED_BY(mu_);
  std::thread worker_;  // last: it uses the others
};

}  // namespace sluice::services
