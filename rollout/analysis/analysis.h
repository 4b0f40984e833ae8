// Is the canary worse than the baseline beside it, by more than is allowed, and is that more than chance? Watched after
// every window, with a stated rate of false alarms. Formulas: e_process.h, exceedance.h, trend.h; when to use which
// mode: docs/rollouts.md.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "rollout/analysis/e_process.h"
#include "rollout/analysis/exceedance.h"
#include "rollout/analysis/trend.h"
#include "rollout/analysis/window.h"

namespace sluice::rollout {

enum class Verdict { kInconclusive, kPass, kFail };
std::string_view VerdictName(Verdict verdict);  // "inconclusive", "pass", "fail"

// kSequential: evidence decides. kThreshold: the ratios of the stage so far decide as soon as there are enough samples,
// by chance as well; for those who want the rule as it is written in a contract.
enum class Mode { kSequential, kThreshold };

struct AnalysisOptions {
  Mode mode = Mode::kSequential;
  double alpha = 0.01;  // chance that a canary that is not worse is ever rolled back, over the whole attempt
  double beta = 0.05;   // chance that one stage passes a canary that is worse by the limit, of each metric
  double max_error_ratio = 2;
  double allowed_error_rate = 0.01;  // a canary shown to fail less than this passes, whatever the ratio
  double max_ttft_ratio = 1.5;       // of the 95th percentiles
  double max_latency_ratio = 1.5;
  double max_growth_per_hour = 0.2;                 // of the bytes that the canary's requests hold
  Duration memory_span = std::chrono::minutes(30);  // at least, before growth is judged
  double min_growth_bytes = 16 << 20;               // less never matters
  double max_crash_rate = 0.001;                    // of requests
  Duration crash_span = std::chrono::minutes(10);   // two crashes within it are enough
  uint64_t threshold_samples = 100;                 // kThreshold: of each arm in the stage, before a ratio counts

  bool operator==(const AnalysisOptions&) const = default;
};

// What one metric says.
struct Check {
  std::string name;  // "error_rate", "ttft_p95", "latency_p95", "crash_rate", "memory_growth"
  Verdict verdict = Verdict::kInconclusive;
  double canary = 0, baseline = 0;          // rates, milliseconds, or growth per hour
  double ratio = 0, low = 0, high = 0;      // 95 % interval; all 0: unknown
  double e_value = 1, e_limit = 0;          // against "it is not worse"; fails at the limit if the ratio says so too
  double pass_e_value = 1, pass_limit = 0;  // against "it is worse by the limit", in this stage
  uint64_t samples = 0;                     // of the canary
};

struct Judgement {
  Verdict verdict = Verdict::kInconclusive;
  std::string cause;  // of a fail, or what is still missing
  std::string hold;   // why the numbers are not to be trusted ("sample_ratio: ..."); empty: they are
  std::vector<Check> checks;
};

// A value. Deterministic: the same windows give the same judgement.
class Analysis {
 public:
  explicit Analysis(const AnalysisOptions& options);

  // The windows of one index, of all replicas (mixed ones are left out). Indexes rise.
  void Add(std::span<const Window> windows);
  // A new stage serves `canary_bps`: what speaks for passing begins anew, alarms go on.
  void OnStage(uint32_t canary_bps);

  Judgement Judge() const;

  // The evidence, so that somebody else can go on with it. The recent past, by which thresholds and ratios of tails are
  // taken, is not in it and fills again within some windows.
  std::string Encode() const;
  static absl::StatusOr<Analysis> Decode(const AnalysisOptions& options, std::string_view text);  // DATA_LOSS

 private:
  static constexpr size_t kRecent = 30;         // windows
  static constexpr size_t kMemoryPoints = 180;  // then every second one is kept
  struct Tail {                                 // of one latency
    explicit Tail(double max_ratio);
    void Add(const Strata& canary, const Strata& baseline);
    double max_ratio;
    Exceedance worse, better;
    std::deque<std::array<Sketch, kArms>> recent;  // by Arm
    std::array<Sketch, kArms> Recent() const;
    void OnStage();
  };
  Check CheckErrors() const;
  Check CheckTail(std::string_view name, const Tail& tail) const;
  Check CheckCrashes() const;
  Check CheckMemory() const;
  std::string SampleRatioAlarm() const;
  Judgement Threshold(Judgement judgement) const;

  AnalysisOptions options_;
  uint32_t bps_ = 0;
  std::array<uint64_t, kArms> events_ = {}, failures_ = {};  // in this stage, by Arm
  RatioTest errors_worse_, errors_better_;
  RateTest errors_allowed_, errors_too_many_, crash_rate_;  // errors_too_many_: while there is no baseline
  PooledRatio error_ratio_;
  Tail ttft_, latency_;
  uint64_t crash_n_ = 0, crashes_ = 0;
  std::deque<double> crash_times_;  // seconds by window
  std::array<std::deque<TrendPoint>, kArms> memory_;
  std::map<std::string, std::vector<double>> shares_;  // replica → log likelihood ratios of other shares
};

}  // namespace sluice::rollout
