// Which backend serves a model: by its path. The only place that knows all of them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/synthetic_backend.h"
#include "engine/models/model_pool.h"

namespace sluice::services {

// "synthetic:" or "synthetic:step_us=500,decode_row_us=20,prefill_row_us=5,natural_length=64,seed=7" (every key
// optional; microseconds of real sleep). INVALID_ARGUMENT naming the key.
absl::StatusOr<engine::SyntheticOptions> ParseSynthetic(const std::string& path);

// Paths that begin with "synthetic:" get the synthetic backend, every other one is a GGUF file for llama.cpp.
engine::BackendFactory MakeBackendFactory(int max_batch_tokens);

}  // namespace sluice::services
