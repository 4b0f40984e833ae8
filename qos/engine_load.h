// What the engine of one model does and can do at the moment, as it measured itself: the input of predictions.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace sluice::qos {

struct EngineLoad {
  int slots = 0, running = 0, waiting = 0;  // sequences
  // Of prompts that it took and has not computed yet, cached ones left out; seen by a request: of those before it.
  int64_t uncomputed_prompt_tokens = 0;
  double prefill_tokens_per_second = 0;  // 0: not measured yet
  double decode_tokens_per_second = 0;   // all streams together; 0: not measured yet
  double kv_usage = 0;                   // share 0..1
};

}  // namespace sluice::qos
