// The engine of one model: a thread that plans, decodes, samples and emits, step after step.
// Decode rows come first; prefill fills the rest of the step up to a time budget from a continuously fitted cost
// model, so that a long prompt never freezes running streams and prefill always progresses (Sarathi-Serve,
// Agrawal et al. 2024, arXiv 2403.02310; continuous batching: Orca, Yu et al., OSDI 2022).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/backend/backend.h"
#include "engine/sampling/sampling_params.h"
#include "engine/scheduler/pipeline_policy.h"
#include "engine/scheduler/token_stream.h"

namespace sluice::engine {

class ComputeGate;
class EngineMetrics;

struct SchedulerOptions {
  std::string model_name;          // metric label
  int max_queue = 256;             // generations waiting for a slot; beyond: RESOURCE_EXHAUSTED
  int max_batch_tokens = 512;      // rows of one step, further limited by the backend
  int max_running = 0;             // generations in a step at most; 0 = number of slots
  int stream_buffer_tokens = 256;  // per stream; a full stream pauses its sequence
  Duration slow_reader_timeout = std::chrono::seconds(30);  // a stream full this long is aborted
  // Step-time target while streams run: prefill gets what decode leaves. 0 = automatic: decode_step × step_stretch.
  Duration step_target = Duration::zero();
  double step_stretch = 2.0;
  int min_prefill_tokens = 64;    // of every step that has waiting prompts, and of a piece of a prompt; see PlanInput
  int idle_prefill_tokens = 256;  // rows of a prefill-only step: full speed, yet new arrivals wait little
  Duration promote_after = std::chrono::seconds(5);  // a prompt that waited gains one priority for each; zero: never
};

inline constexpr int kPriorities = 4;

// What a pipeline hands to the engine. Validated: 1 ≤ prompt size, prompt + max_tokens ≤ slot_context.
struct Generation {
  std::string request_id;
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  int max_tokens = 16;
  std::vector<std::string> stop_strings;
  bool ignore_eos = false;
  MonoTime submitted{};                 // arrival; queue wait and TTFT count from here
  MonoTime deadline = kInfiniteFuture;  // passed: finished with kDeadline, never prefilled after it
  // A prompt that nobody has begun to compute and that cannot have its first token by then waits until all others are
  // done, and ends with kDeadline (TTFT_UNREACHABLE) at that time.
  MonoTime first_token_by = kInfiniteFuture;
  int priority = 0;        // 0 to kPriorities - 1; prompts of a smaller one are computed first
  std::string cache_salt;  // prefixes are shared only within one salt (tenant, adapter)
  PipelinePolicy policy;
};

struct SchedulerStatus {
  int slots = 0;
  int running = 0;   // hold a slot
  int waiting = 0;   // wait for a slot
  int paused = 0;    // running, but their reader is slow
  int orphaned = 0;  // slots held by nobody: anything but 0 is a bug
  // Of everybody who waits or prefills, by priority; what reuse may spare is in it.
  std::array<int64_t, kPriorities> uncomputed_prompt_tokens{};
  uint64_t kv_tokens_used = 0;
  uint64_t kv_tokens_total = 0;
  uint64_t steps = 0;
  // Recent; zero: not measured yet, or the engine has been idle for half a minute.
  double decode_tokens_per_second = 0;   // all streams together
  double prefill_tokens_per_second = 0;  // of steps full of prompts
  Duration last_step_age{};              // since the last completed step; zero while idle
  bool healthy = true;                   // false after a backend failure that repeated
};

// Thread-safety: thread-safe. Ownership: owns the backend and its thread. The destructor stops it.
class Scheduler {
 public:
  // `gate` (may be null) admits one model at a time to the CPU; `clock`, `metrics` and `gate` outlive the scheduler.
  Scheduler(std::unique_ptr<Backend> backend, const SchedulerOptions& options, const Clock& clock,
            EngineMetrics& metrics, ComputeGate* gate);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a generation; never blocks. `on_finish` runs once, on the engine thread, before the reader learns it.
  // RESOURCE_EXHAUSTED (QUEUE_FULL, with retry_after), DEADLINE_EXCEEDED (already passed), OUT_OF_RANGE (does not
  // fit a slot), UNAVAILABLE (stopping).
  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(
      Generation generation, std::function<void(const GenerationSummary&)> on_finish = nullptr);

  // Runs Backend::Embed on the engine thread between two steps; `done` is called there.
  absl::Status SubmitEmbedding(std::vector<TokenId> tokens, MonoTime deadline,
                               std::function<void(absl::StatusOr<std::vector<float>>)> done);

  // Aborts what runs (UNAVAILABLE) and joins the engine thread; later calls are refused. Idempotent. Not from the
  // engine thread.
  void Stop();

  SchedulerStatus Status() const;
  const Backend& backend() const;  // only its thread-safe members

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::engine
