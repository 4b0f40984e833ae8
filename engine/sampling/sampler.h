// Chooses tokens from logits. One Sampler per generation.
// Order of the stages: penalties → temperature → top-k → top-p → min-p → draw (the order of vLLM and
// Hugging Face's logits warpers). Nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751; min-p: Nguyen et
// al. 2024, arXiv 2407.01082; repetition penalty: Keskar et al. 2019, arXiv 1909.05858.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/backend/tokenizer.h"
#include "engine/sampling/sampling_params.h"

namespace sluice::engine {

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // natural log, of the model's distribution before penalties and temperature
};

struct SampledToken {
  TokenId token = 0;
  float logprob = 0;              // filled when params.want_logprobs or params.logprobs > 0
  float top2_margin = 0;          // greedy only: best logit minus second best (see docs/testing.md)
  std::vector<TokenLogprob> top;  // params.logprobs entries, best first
};

// Thread-safety: thread-compatible (engine thread). Deterministic: same params, seed, prompt and logits give the
// same tokens on every platform with IEEE floats. Ties go to the lower token id.
class Sampler {
 public:
  // `prompt` feeds the repetition penalty; it is copied only when that penalty is on.
  Sampler(const SamplingParams& params, uint64_t seed, std::span<const TokenId> prompt);
  ~Sampler();
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;

  // `banned` tokens are never chosen (ignore_eos bans end-of-generation tokens). NaN logits count as -inf, +inf as
  // the largest float; when nothing above -inf is left the lowest allowed token id is chosen (0 if none is allowed).
  SampledToken Sample(std::span<const float> logits, std::span<const TokenId> banned);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::engine
