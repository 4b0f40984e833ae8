// Pooled text embeddings from a generation model: its own small context, so that embedding never touches a slot.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/tokenizer.h"
#include "engine/llama/llama_handles.h"

namespace sluice::engine {

// Engine thread only. `model` and `pool` must outlive it.
class LlamaEmbedder {
 public:
  // `context_tokens`: the longest input. UNIMPLEMENTED: the model pools for ranking.
  static absl::StatusOr<std::unique_ptr<LlamaEmbedder>> Create(llama_model& model, ggml_threadpool& pool, int threads,
                                                               int context_tokens);

  // As Backend::Embed.
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenId> tokens);

 private:
  LlamaEmbedder(LlamaContextPtr context, int context_tokens, int embedding_size)
      : context_(std::move(context)),
        batch_(context_tokens),
        context_tokens_(context_tokens),
        embedding_size_(embedding_size) {}

  LlamaContextPtr context_;
  LlamaBatch batch_;
  const int context_tokens_;
  const int embedding_size_;
};

}  // namespace sluice::engine
