// Everything in which one pipeline differs from another: a value, so that both share one engine.
#pragma once

#include <string>

#include "base/clock.h"

namespace sluice::engine {

enum class PrefillOrder {
  kFifo,                   // by arrival
  kShortestUncachedFirst,  // fewest tokens left to compute first; waiting earns credit (ageing)
};

struct PipelinePolicy {
  std::string name = "baseline";  // also the metric label
  PrefillOrder order = PrefillOrder::kFifo;
  bool reuse_prefix = false;  // take KV of a common prefix from another sequence, and offer own KV to others
  int min_reuse_tokens = 16;  // shorter common prefixes are computed instead; unit tokens
  // Ageing: one millisecond of waiting counts like this many fewer tokens to compute. 0 = none (can starve).
  double ageing_tokens_per_ms = 0.5;
};

}  // namespace sluice::engine
