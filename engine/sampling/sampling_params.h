// How the next token is chosen. Units, ranges and defaults as in protos/sluice/v1/inference.proto.
#pragma once

#include <cstdint>
#include <optional>

namespace sluice::engine {

struct SamplingParams {
  float temperature = 0.0F;         // 0 = greedy; allowed 0 to 2
  float top_p = 1.0F;               // (0, 1]; 1 = off
  int top_k = 0;                    // 0 = off; allowed 0 to vocabulary size
  float min_p = 0.0F;               // [0, 1); 0 = off
  float repetition_penalty = 1.0F;  // (0, 2]; 1 = off. Over prompt and output, as in vLLM.
  float presence_penalty = 0.0F;    // [-2, 2]; 0 = off. Over output only, as in OpenAI's API.
  float frequency_penalty = 0.0F;   // [-2, 2]; 0 = off. Over output only.
  std::optional<uint64_t> seed;     // unset: derived from the request id
  int logprobs = 0;                 // top alternatives to report per token; 0 = none, at most 20
  bool want_logprobs = false;       // report the chosen token's log probability (implied by logprobs > 0)
};

}  // namespace sluice::engine
