// Ownership of libllama's C objects.
#pragma once

#include <memory>

#include "ggml-cpu.h"
#include "llama.h"

namespace sluice::engine {

struct LlamaDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};

using LlamaModelPtr = std::unique_ptr<llama_model, LlamaDeleter>;
using LlamaContextPtr = std::unique_ptr<llama_context, LlamaDeleter>;
using LlamaThreadpoolPtr = std::unique_ptr<ggml_threadpool, LlamaDeleter>;

// A batch of fixed capacity, refilled each step.
class LlamaBatch {
 public:
  explicit LlamaBatch(int capacity) : batch_(llama_batch_init(capacity, 0, 1)) {}
  ~LlamaBatch() { llama_batch_free(batch_); }
  LlamaBatch(const LlamaBatch&) = delete;
  LlamaBatch& operator=(const LlamaBatch&) = delete;

  void Clear() { batch_.n_tokens = 0; }
  void Add(llama_token token, llama_pos position, llama_seq_id sequence, bool want_output) {
    const int i = batch_.n_tokens++;
    batch_.token[i] = token;
    batch_.pos[i] = position;
    batch_.n_seq_id[i] = 1;
    batch_.seq_id[i][0] = sequence;
    batch_.logits[i] = want_output ? 1 : 0;
  }
  const llama_batch& get() const { return batch_; }

 private:
  llama_batch batch_;
};

}  // namespace sluice::engine
