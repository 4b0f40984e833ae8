// What other policies would have done to a recorded period: its requests, outcomes and judgements are gone through
// again, in order, by the very engine that decides in production, under a clock that shows the recorded times.
//
// What stays as recorded: when requests came, how those that are let in performed, and what admission refused. So the
// report says what is taken away from the engine; that the remaining requests would also have been quicker is not in
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "qos/decision_log.h"
#include "qos/policy.h"
#include "qos/quotas.h"

namespace sluice::qos {

struct ReplayOptions {
  std::shared_ptr<const PolicySet> policies;
  std::vector<QuotaRule> quotas;
  bool enforce_all = false;  // policies in dry_run act as if enforced; those that are off stay off
};

struct ReplayReport {
  Duration period{};
  uint64_t requests = 0;
  std::map<std::string, uint64_t> recorded;  // verdicts, by word

  struct Effect {
    uint64_t shed = 0, shortened = 0, switched = 0;  // requests
    int64_t prompt_tokens_saved = 0;                 // of shed requests that had run
    int64_t output_tokens_saved = 0;                 // of these and of shortened ones
  };
  struct PolicyReport {
    Effect enforced, dry_run;
    int highest_step = 0;
    uint64_t actions = 0;
    std::map<std::string, Duration> violated;  // by metric: how long
  };
  std::map<std::string, PolicyReport> policies;    // by id
  std::map<std::string, uint64_t> quota_refusals;  // by word
  std::map<std::string, uint64_t> shed_by_class;   // enforced
  uint64_t let_in =
      0;  // recorded as refused by a policy or quota, not refused now; how they would have ended is unknown

  struct Step {
    Duration at{};                     // since the first record
    std::string policy, metric, what;  // what: "step 2: shed", "step 1 ends: ..."
    double value = 0, threshold = 0;
    bool dry_run = false;
  };
  std::vector<Step> steps;  // the first `kMaxSteps`
  uint64_t steps_left_out = 0;
  static constexpr size_t kMaxSteps = 1000;

  // Decisions whose enforced and dry-run effects differ from the recorded ones; 0 when the same policies are replayed
  // over a log that begins with the process.
  uint64_t differ = 0;
};

// Thread-safety: thread-compatible. Memory: bounded by the requests that run at the same time.
class Replay {
 public:
  explicit Replay(ReplayOptions options);
  ~Replay();

  void Add(const QosRecord& record);  // in the order of the log
  ReplayReport Finish();              // once

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
