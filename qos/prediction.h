// When would the first and the last token of a request come, if it were let in now? From what the engine measured of
// itself, in well under a microsecond, so that what cannot make its deadline is refused before it costs anything.
// Sources: Little's law (permits in use = completions per second × time that each is held) for the wait for a place;
// tokens over measured rate for prefill, as vLLM's --max-num-queued-tokens ~ TTFT × prefill throughput
// (anchors/qos_reliability.md §2.8) and llm-d's latency predictor use it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "base/reason.h"
#include "qos/engine_load.h"
#include "qos/request.h"

namespace sluice::qos {

// Who is served before a request that comes now, outside the engine.
struct Ahead {
  int requests = 0;                   // waiting for admission, of its class or a better one
  int64_t prompt_tokens = 0;          // of them all, cached ones left out
  int free_permits = 1;               // before they take theirs
  double completions_per_second = 0;  // permits given back; 0: not known
};

struct Prediction {
  Duration ttft, finish;  // from now
};

// nullopt: not known, because the engine has not measured a rate yet, or nobody knows when a place will be free.
//   places = requests that must end first: for a permit, and for one of the engine's slots
//   start  = max(places / completions_per_second, prompt tokens ahead / prefill rate)    (both pass at the same time)
//   ttft   = start + uncached_prompt_tokens / prefill rate
//   finish = ttft + (output_tokens - 1) × streams / decode rate                          (the pace of a stream now)
// It assumes that rates stay as they are; it does not know how long answers will get: `output_tokens` is the caller's
// guess. Pure.
std::optional<Prediction> Predict(const EngineLoad& load, int uncached_prompt_tokens, int output_tokens,
                                  const Ahead& ahead = {});

// How wrong predictions of the first token are: whatever they leave out (more urgent prompts that come later, what else
// the machine does) shows in it. The ratio of real to predicted times, long ones weighing more, the last some 50
// requests of a class; within 0.5 and 4, so that a run of bad luck cannot shut anybody out.
class TtftCorrection {
 public:
  // `real`: or how long it did not come. Ignores what is not positive.
  void Learn(Duration predicted, Duration real);
  double factor() const;

 private:
  double predicted_ms_ = 1000, real_ms_ = 1000;  // a little trust to begin with
};

// Work that would come too late: TTFT_UNREACHABLE, its first token after the ttft objective; DEADLINE_UNREACHABLE, its
// end after a deadline that the client chose, or its first token after the server's default one.
struct Late {
  Reason reason = Reason::kDeadlineUnreachable;
  Duration predicted, allowed;  // from now
};
// nullopt: it can be done, as far as one knows. Late is what needs more than the objective, or than `tolerance` × the
// time that is left: a first token after its objective is worth nothing, an answer may be shorter than predicted. Pure.
std::optional<Late> Judge(const Request& request, const Prediction& prediction, MonoTime now, double tolerance);

// The work of a request in prompt tokens: an output token counts as many as the engine computes in its time. Pure.
double WorkOf(const EngineLoad* load, int uncached_prompt_tokens, int output_tokens);

}  // namespace sluice::qos
