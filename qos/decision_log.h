// What was decided for whom, from which inputs: the newest decisions for operators, and everything, in order, for an
// observer that keeps it (a file), so that a period can be decided again under other policies (replay.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "qos/engine_load.h"
#include "qos/policy_engine.h"
#include "qos/request.h"

namespace sluice::qos {

// What the qos_policy flag says about a request: whether policies may act on it.
enum class PolicyUse { kOff, kDryRun, kEnforce };
std::string_view PolicyUseName(PolicyUse use);  // "off", "dry_run", "enforce"

// A request, its inputs, and the answer. No prompt, no text, no targeting key: only its hash.
struct DecisionRecord {
  uint64_t id = 0;  // 1, 2, ... in order
  MonoTime at{};
  WallTime wall{};
  // inputs
  std::string request_id, tenant, model;
  QosClass qos_class = QosClass::kStandard;
  uint64_t key_hash = 0;
  int prompt_tokens = 0, max_tokens = 0;
  size_t prompt_bytes = 0;
  Duration time_left = Duration::max();  // to the deadline; max: none
  Duration ttft_objective{};
  EngineLoad load;
  PolicyUse use = PolicyUse::kOff;
  // answer
  std::string verdict;            // "admitted", or the word of the refusal
  std::string enforced, dry_run;  // as ExplainActions writes them
  int granted_max_tokens = 0;
  uint64_t epoch = 0;  // of the policies
};

// How a request that was admitted ended.
struct OutcomeRecord {
  std::string request_id, tenant, model;
  RequestOutcome outcome;  // its views are empty: see the strings
};

// What Evaluate was told.
struct JudgementRecord {
  MonoTime at{};
  SystemState state;
};

using QosRecord = std::variant<DecisionRecord, OutcomeRecord, JudgementRecord>;

// Called one at a time, in order; must be quick.
class QosObserver {
 public:
  virtual ~QosObserver() = default;
  virtual void Recorded(const QosRecord& record) = 0;
};

// "shed:POLICY", "max_tokens=64:POLICY", "pipeline=baseline:POLICY", joined by ","; empty: nothing.
std::string ExplainActions(const PolicyEffects::Actions& actions);

// Thread-safety: thread-safe; a short lock. Keeps the newest `capacity` decisions.
class DecisionLog {
 public:
  // `observer` may be null; it outlives this.
  DecisionLog(size_t capacity, QosObserver* observer);

  void Add(DecisionRecord record) ABSL_LOCKS_EXCLUDED(mu_);
  void Add(OutcomeRecord record) ABSL_LOCKS_EXCLUDED(mu_);
  void Add(const JudgementRecord& record) ABSL_LOCKS_EXCLUDED(mu_);

  struct Filter {
    std::string tenant, model, verdict, policy;  // empty: any; `policy`: named in `enforced` or `dry_run`
    std::string request_id;
  };
  // The newest first, at most `limit`.
  std::vector<DecisionRecord> Newest(const Filter& filter, size_t limit) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const size_t capacity_;
  QosObserver* const observer_;
  mutable Mutex mu_;
  std::vector<DecisionRecord> ring_ ABSL_GUARDED_BY(mu_);  // id n is at (n - 1) % capacity
  uint64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sluice::qos
