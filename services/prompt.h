// From a request to what the engine needs: tokens and limits, checked against the model. Pure, but for the tokenizer.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "engine/models/model_pool.h"
#include "services/request.h"

namespace sluice::services {

struct PromptLimits {
  int default_max_tokens = 256;
  int max_tokens_limit = 2048;
};

struct PreparedPrompt {
  std::vector<engine::TokenId> tokens;
  int max_tokens = 0;
  int truncated = 0;  // tokens dropped from the start (truncate_prompt only)
};

// INVALID_ARGUMENT (each violated field), OUT_OF_RANGE (CONTEXT_EXCEEDED, both numbers), FAILED_PRECONDITION (chat
// without a chat template). Without max_tokens the default is used, cut to what the slot has left.
absl::StatusOr<PreparedPrompt> PreparePrompt(const InferenceRequest& request, const engine::LoadedModel& model,
                                             const PromptLimits& limits);

// PERMISSION_DENIED (MODEL_NOT_ALLOWED) unless the caller's key allows the model.
absl::Status CheckModelAllowed(const Caller& caller, const std::string& model);
// The same for a name as a request has it: "" is the default model. Ask before a load is begun for the caller.
absl::Status CheckMayUse(const engine::ModelPool& models, const Caller& caller, const std::string& name);

}  // namespace sluice::services
