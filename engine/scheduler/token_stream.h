// The bounded channel from the engine thread to one reader (a gRPC reactor, an HTTP writer, a test).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/sampling/sampler.h"

namespace sluice::engine {

enum class FinishReason {
  kStop,       // end-of-generation token or stop string
  kLength,     // max_tokens reached
  kCancelled,  // the client left
  kDeadline,   // its deadline passed
  kError,      // see GenerationSummary::status
};
std::string_view FinishReasonName(FinishReason reason);  // "stop", "length", "cancelled", "deadline", "error"

struct TokenEvent {
  SampledToken sampled;
  std::string text;  // what this token made safe to send; may be empty
};

// How one generation went. Times are durations on the engine's clock.
struct GenerationSummary {
  FinishReason reason = FinishReason::kError;
  absl::Status status;      // OK for kStop and kLength
  std::string stop_string;  // the stop string that ended it, if one did
  int prompt_tokens = 0;
  int cached_tokens = 0;  // prompt tokens whose KV was reused
  int output_tokens = 0;
  Duration queue_wait{};      // submitted → first scheduled step
  Duration prefill{};         // first scheduled step → first token sampled
  Duration ttft{};            // submitted → first token sampled
  Duration decode{};          // first token → last token
  Duration longest_gap{};     // between two tokens, but for those that a slow reader caused
  float min_top2_margin = 0;  // smallest greedy margin seen; 0 when not greedy
};

// Thread-safety: the engine calls Push/Finish/HasRoom; one reader calls the rest; Cancel from any thread.
// Bounded: at most `capacity` tokens wait; a full stream pauses its sequence (backpressure), it never blocks the
// engine. Lifetime: shared by engine and reader, whoever leaves last frees it.
class TokenStream {
 public:
  explicit TokenStream(size_t capacity);

  // --- engine side ---
  bool HasRoom() const ABSL_LOCKS_EXCLUDED(mu_);
  void Push(TokenEvent event) ABSL_LOCKS_EXCLUDED(mu_);  // requires HasRoom() and not finished
  void Finish(std::string tail_text, GenerationSummary summary) ABSL_LOCKS_EXCLUDED(mu_);
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  // --- reader side ---
  struct Batch {
    std::vector<TokenEvent> tokens;  // in order
    bool finished = false;           // nothing will follow; summary and tail_text are valid
    std::string tail_text;
    GenerationSummary summary;
  };
  // Everything that waits, at once; empty and not finished when nothing does. Frees room.
  Batch Take() ABSL_LOCKS_EXCLUDED(mu_);
  // Calls `ready` (from the engine thread, or inline when something waits already) once, as soon as Take() would
  // return something. One callback at a time; `ready` must not block.
  void NotifyWhenReady(std::function<void()> ready) ABSL_LOCKS_EXCLUDED(mu_);
  // Asks the engine to stop; it finishes the stream with kCancelled within one step. Idempotent.
  void Cancel() ABSL_LOCKS_EXCLUDED(mu_);

  // Called once each, by whoever built the stream, before the engine sees it. `on_room` runs when a full stream
  // got room or was cancelled (to wake the engine); `on_finish` runs on the engine thread inside Finish, before the
  // reader is told.
  void SetEngineWaker(std::function<void()> on_room);
  void SetFinishObserver(std::function<void(const GenerationSummary&)> on_finish);

 private:
  const size_t capacity_;
  std::atomic<bool> cancelled_{false};  // atomic: polled by the engine each step without the lock
  std::function<void()> on_room_;
  std::function<void(const GenerationSummary&)> on_finish_;
  mutable Mutex mu_;  // leaf lock: never held while calling out
  std::deque<TokenEvent> tokens_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::string tail_text_ ABSL_GUARDED_BY(mu_);
  GenerationSummary summary_ ABSL_GUARDED_BY(mu_);
  std::function<void()> ready_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::engine
