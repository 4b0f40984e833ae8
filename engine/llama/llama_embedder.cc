#include "engine/llama/llama_embedder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/status.h"
#include "engine/llama/llama_loader.h"
#include "engine/llama/llama_log.h"

namespace sluice::engine {

absl::StatusOr<std::unique_ptr<LlamaEmbedder>> LlamaEmbedder::Create(llama_model& model, ggml_threadpool& pool,
                                                                     int threads, int context_tokens) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = static_cast<uint32_t>(context_tokens);  // pooling needs one ubatch
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = threads;
  params.embeddings = true;
  params.no_perf = true;
  // What the file asks for; generation models ask for nothing.
  if (ArchitectureNumber(model, "pooling_type", LLAMA_POOLING_TYPE_NONE) == LLAMA_POOLING_TYPE_NONE) {
    params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
  }
  SLUICE_ASSIGN_OR_RETURN(LlamaContextPtr context, MakeContext(model, params, "embedding context"));
  if (llama_pooling_type(context.get()) == LLAMA_POOLING_TYPE_RANK) {
    return absl::UnimplementedError("the model ranks texts; it has no embeddings");
  }
  llama_attach_threadpool(context.get(), &pool, &pool);
  return std::unique_ptr<LlamaEmbedder>(
      new LlamaEmbedder(std::move(context), context_tokens, llama_model_n_embd_out(&model)));
}

absl::StatusOr<std::vector<float>> LlamaEmbedder::Embed(std::span<const TokenId> tokens) {
  if (tokens.empty()) return absl::InvalidArgumentError("nothing to embed: the text has no tokens");
  if (tokens.size() > static_cast<size_t>(context_tokens_)) {
    return absl::InvalidArgumentError(
        fmt::format("the text has {} tokens; an embedding accepts at most {}", tokens.size(), context_tokens_));
  }
  batch_.Clear();
  for (size_t i = 0; i < tokens.size(); ++i) batch_.Add(tokens[i], static_cast<llama_pos>(i), 0, true);
  LlamaErrorCapture capture;
  try {
    if (llama_memory_t memory = llama_get_memory(context_.get()); memory != nullptr) {
      llama_memory_clear(memory, /*data=*/false);
    }
    const int result = llama_decode(context_.get(), batch_.get());
    const float* pooled = result == 0 ? llama_get_embeddings_seq(context_.get(), 0) : nullptr;
    if (pooled == nullptr) {
      return absl::InternalError(
          fmt::format("embedding failed with code {}: {}", result, capture.ReasonOr("no reason given")));
    }
    std::vector<float> embedding(pooled, pooled + embedding_size_);
    double square_sum = 0;
    for (float x : embedding) square_sum += static_cast<double>(x) * x;
    if (!std::isfinite(square_sum)) return absl::InternalError("the model computed a non-finite embedding");
    const double scale = square_sum > 0 ? 1 / std::sqrt(square_sum) : 0;
    for (float& x : embedding) x = static_cast<float>(x * scale);
    return embedding;
  } catch (const std::exception& e) {
    return absl::InternalError(fmt::format("embedding failed: {}", e.what()));
  }
}

}  // namespace sluice::engine
