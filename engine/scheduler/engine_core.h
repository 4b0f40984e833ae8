// The engine without its thread: everything that happens between two steps, so that tests and simulations drive it step
// by step under a manual clock. Scheduler wraps it into a thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/backend/backend.h"
#include "engine/cache/prefix_index.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/scheduler_probe.h"
#include "engine/scheduler/sequence.h"
#include "engine/scheduler/slot_table.h"
#include "engine/scheduler/step_cost.h"
#include "engine/scheduler/step_planner.h"

namespace sluice::engine {

// Thread-safety: engine thread only. Everything referenced outlives it.
class EngineCore {
 public:
  EngineCore(Backend& backend, const SchedulerOptions& options, const Clock& clock, SchedulerProbe& probe);

  // Takes a generation that Scheduler::Submit validated.
  void Enqueue(Generation generation, std::shared_ptr<TokenStream> stream);

  enum class StepResult {
    kComputed,  // one Decode call was made
    kBlocked,   // there are sequences, but all are paused or wait for a slot: try again after a wake-up or a while
    kIdle,      // nothing to do
  };
  // One step, in this order: drop what was cancelled, expired or not read; plan; place newcomers; decode; sample; emit.
  StepResult Step();

  // Ends every sequence with `status`.
  void AbortAll(const absl::Status& status);

  SchedulerStatus Status() const;
  int waiting() const;

 private:
  struct Row {
    Sequence* sequence;
    int tokens;  // rows it brings
  };

  void Sweep(MonoTime now);
  std::vector<Row> DecodeRows(StepShape& shape);
  StepPlan Plan(const StepShape& decode, MonoTime now);
  void AddCandidate(int id, MonoTime now, PlanInput& input);
  void Place(Sequence& s);
  absl::Status Decode(const std::vector<Row>& rows);
  void FailStep(const std::vector<Row>& rows, const absl::Status& status);
  void Emit(const std::vector<Row>& rows);
  // Returns false when the sequence ended.
  bool Accept(Sequence& s, int logits_row, MonoTime now);
  void Finish(Sequence& s, FinishReason reason, absl::Status status);
  void Collect();  // erases finished sequences
  int PolicyIndex(const PipelinePolicy& policy);
  int FreeSlots() const;
  // `full`: prompts were left over.
  void UpdateRates(const StepShape& shape, bool full, Duration elapsed);
  double PrefillRate() const { return prefill_seconds_ > 0 ? prefill_tokens_ / prefill_seconds_ : 0; }
  // How long the first token takes when only `uncomputed` tokens of the prompt stand before it.
  Duration ShortestPrefill(int uncomputed) const;

  Backend& backend_;
  const SchedulerOptions options_;
  const Clock& clock_;
  SchedulerProbe& probe_;
  const int max_rows_;
  const int max_running_;

  struct Policy {
    PipelinePolicy value;
    double service = 0;
  };
  std::vector<Policy> policies_;                      // bounded by the number of pipelines
  std::vector<std::unique_ptr<Sequence>> sequences_;  // in order of arrival
  std::vector<Slot> slots_;
  PrefixIndex index_;
  StepCost cost_;
  std::vector<TokenId> end_tokens_;     // banned under ignore_eos
  std::vector<BatchRow> batch_;         // reused between steps
  std::vector<PrefillCandidate> late_;  // of this step: cannot have their first token in time any more
  uint64_t next_order_ = 0;
  uint64_t steps_ = 0;
  int failures_in_a_row_ = 0;
  double decode_rate_ = 0;                           // tokens/s, exponentially averaged
  double prefill_tokens_ = 0, prefill_seconds_ = 0;  // of the last full steps, exponentially forgotten
};

}  // namespace sluice::engine
