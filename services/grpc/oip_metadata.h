// What the Open Inference Protocol says about server and models.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/models/model_pool.h"
#include "inference/grpc_service.pb.h"

namespace sluice::services {

// `name` empty: the default model. Nothing when there is no such model.
std::optional<engine::ModelInfo> FindModel(const engine::ModelPool& models, std::string_view name);
// As FindModel, with NOT_FOUND listing what exists, or saying which version does.
absl::StatusOr<engine::ModelInfo> FindModelVersion(const engine::ModelPool& models, const std::string& name,
                                                   const std::string& version);

void EncodeServerMetadata(inference::ServerMetadataResponse& response);
// `embeddings`: whether the model can make them; true while that is unknown.
void EncodeModelMetadata(const engine::ModelInfo& model, bool embeddings, inference::ModelMetadataResponse& response);
void EncodeModelConfig(const engine::ModelInfo& model, bool embeddings, inference::ModelConfig& config);
void EncodeModelIndex(const engine::ModelInfo& model, inference::RepositoryIndexResponse::ModelIndex& index);

}  // namespace sluice::services
