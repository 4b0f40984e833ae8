// Makes a pipeline fail, crash, stall or leak on purpose, as config/fault_file.h says. Off unless a file is configured.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "config/fault_file.h"

namespace sluice::services {

// Thread-safety: thread-safe. Owns a thread, which waits for nothing but delays that are over.
class FaultInjection {
 public:
  static constexpr size_t kMaxDelayed = 10'000;          // beyond, requests are not delayed
  static constexpr int64_t kMaxLeak = int64_t{4} << 30;  // beyond, nothing more is leaked

  // `random`: numbers in [0, 1), called under a lock.
  FaultInjection(const Clock& clock, std::function<double()> random);
  ~FaultInjection();  // runs what is still delayed

  // From now on. Logged as a warning: somebody should know.
  void Set(config::FaultsByPipeline faults) ABSL_LOCKS_EXCLUDED(mu_);

  struct Strike {
    bool fail = false;
    int64_t leaked = 0;  // bytes that the process now holds for ever, for the arm's account
    Duration delay{};
  };
  // What befalls the next request of the pipeline. A crash ends the process here.
  Strike Next(std::string_view pipeline) ABSL_LOCKS_EXCLUDED(mu_);

  // Runs `next` after the delay on the injection's thread; at once, here, when there is none.
  void After(Duration delay, std::function<void()> next) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  const Clock& clock_;
  Mutex mu_;  // leaf
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::function<double()> random_ ABSL_GUARDED_BY(mu_);
  config::FaultsByPipeline faults_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> leak_ ABSL_GUARDED_BY(mu_);
  int64_t leaked_ ABSL_GUARDED_BY(mu_) = 0;
  std::multimap<MonoTime, std::function<void()>> delayed_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses the others
};

}  // namespace sluice::services
