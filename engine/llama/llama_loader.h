// From a GGUF path to a libllama model, with every failure as a Status.
#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/llama/llama_handles.h"

namespace sluice::engine {

// NOT_FOUND, INVALID_ARGUMENT (with libllama's reason), RESOURCE_EXHAUSTED. `check_tensors` reads all weights and
// refuses NaNs and impossible block scales.
absl::StatusOr<LlamaModelPtr> LoadModelFile(const std::string& path, bool check_tensors);

ModelFacts ReadFacts(const llama_model& model);

// A metadata value of the model's own architecture ("attention.key_length"), or `fallback`.
int64_t ArchitectureNumber(const llama_model& model, const std::string& key, int64_t fallback);

// Tokens of KV that libllama reserves for a slot context of `tokens`.
int RoundUpSlotContext(int tokens);

// INVALID_ARGUMENT: the model embeds, translates or denoises, but does not continue text.
absl::Status CheckCanGenerate(const llama_model& model, const std::string& path);

// INVALID_ARGUMENT: NaN or infinity among the logits: broken weights.
absl::Status CheckFinite(std::span<const float> logits, const std::string& path);

// RESOURCE_EXHAUSTED: the KV cache is larger than the machine's memory. libllama would touch all of it at once and be
// killed. Budgets below that are the model pool's.
absl::Status CheckFitsInMemory(const ModelFacts& facts, const KvGeometry& geometry);

// A context. `what` names it in errors. RESOURCE_EXHAUSTED: its memory cannot be had; INVALID_ARGUMENT otherwise.
absl::StatusOr<LlamaContextPtr> MakeContext(llama_model& model, const llama_context_params& params,
                                            const std::string& what);

}  // namespace sluice::engine
