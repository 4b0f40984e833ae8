// What an operator wants of a rollout: how far, how fast, on what evidence, and what happens when it goes wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "rollout/analysis/analysis.h"

namespace sluice::rollout {

inline constexpr uint32_t kAllBps = 10'000;  // 100 % in steps of 0.01 %
inline constexpr size_t kMaxStages = 20;
inline constexpr size_t kMaxRollouts = 32;

struct Stage {
  uint32_t bps = 0;
  Duration dwell = std::chrono::minutes(10);  // at least, before the next one
  uint64_t min_samples = 500;                 // events of the canary in this stage, and as many of the baseline

  bool operator==(const Stage&) const = default;
};

enum class Promotion { kAutomatic, kManual };
// kGradual: down the stages, one each `rollback_interval`, for canaries that carry load the baseline must take over
// slowly. A trip of a replica (crashes, failures in a row, an open breaker) is instant in either.
enum class RollbackStyle { kInstant, kGradual };
// After the cool-down: kStay until a person starts a new attempt; kRetry: begin a new attempt, max_attempts at most.
enum class AfterRollback { kStay, kRetry };

struct RolloutSpec {
  std::string flag;
  std::vector<Stage> stages = {{.bps = 100}, {.bps = 1'000}, {.bps = 5'000}, {.bps = kAllBps}};
  Promotion promotion = Promotion::kAutomatic;
  AnalysisOptions analysis;
  int failures_in_a_row = 5;    // of the canary on one replica take it to 0 % at once; 0: never
  uint32_t holdback_bps = 100;  // kept on the baseline at the last stage, so that there is something to compare with
  RollbackStyle rollback = RollbackStyle::kInstant;
  Duration rollback_interval = std::chrono::minutes(1);
  Duration cool_down = std::chrono::minutes(30);  // after a rollback, before another attempt
  AfterRollback after_rollback = AfterRollback::kStay;
  int max_attempts = 3;
  // A store that is out of reach for so long takes a canary to 0 % on this replica; zero: it keeps the last percentage.
  Duration decay_after = Duration::zero();
  std::vector<std::string> alerts;  // webhooks of the QoS file that learn of each transition

  bool operator==(const RolloutSpec&) const = default;

  // What stage `i` serves: its percentage, less the hold-back where both do not fit.
  uint32_t Share(size_t i) const;
};

// INVALID_ARGUMENT with every fault of the spec: stages not rising, more than 100 %, none, a hold-back beyond 5 %.
absl::Status CheckSpec(const RolloutSpec& spec);

}  // namespace sluice::rollout
