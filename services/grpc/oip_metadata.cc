#include "services/grpc/oip_metadata.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "services/grpc/oip_codec.h"

namespace sluice::services {
namespace {

using engine::ModelInfo;
using engine::ModelState;

constexpr int64_t kAnyLength = -1;

struct Output {
  std::string_view name, datatype;
  int64_t length;
};

std::vector<Output> OutputsOf(const ModelInfo& model, bool embeddings) {
  std::vector<Output> outputs = {
      {"text_output", "BYTES", 1}, {"token_ids", "INT32", kAnyLength}, {"finish_reason", "BYTES", 1}};
  const int size = model.facts.has_value() ? model.facts->embedding_size : 0;
  if (embeddings) outputs.push_back({"embedding", "FP32", size > 0 ? size : kAnyLength});
  return outputs;
}

std::string PlatformOf(const ModelInfo& model) {
  return model.spec.path.starts_with("synthetic:") ? "sluice_synthetic" : "sluice_llama";
}

inference::DataType TypeOf(std::string_view datatype) {
  if (datatype == "BOOL") return inference::TYPE_BOOL;
  if (datatype == "INT32") return inference::TYPE_INT32;
  if (datatype == "UINT64") return inference::TYPE_UINT64;
  if (datatype == "FP32") return inference::TYPE_FP32;
  return inference::TYPE_STRING;
}

}  // namespace

std::optional<ModelInfo> FindModel(const engine::ModelPool& models, std::string_view name) {
  for (ModelInfo& model : models.List()) {
    if (name.empty() ? model.is_default : model.spec.name == name) return std::move(model);
  }
  return std::nullopt;
}

absl::StatusOr<ModelInfo> FindModelVersion(const engine::ModelPool& models, const std::string& name,
                                           const std::string& version) {
  if (const auto acquired = models.Acquire(name); absl::IsNotFound(acquired.status())) return acquired.status();
  std::optional<ModelInfo> model = FindModel(models, name);
  SLUICE_CHECK(model.has_value(), "a model is never removed from the pool");
  SLUICE_RETURN_IF_ERROR(CheckOipVersion(model->spec.name, version));
  return *std::move(model);
}

void EncodeServerMetadata(inference::ServerMetadataResponse& response) {
  response.set_name("sluice");
  response.set_version(SLUICE_VERSION);
  // The names of Triton's extensions that hold here.
  for (const char* extension : {"model_repository", "model_repository(unload_dependents)", "schedule_policy",
                                "model_configuration", "parameters", "statistics"}) {
    response.add_extensions(extension);
  }
}

void EncodeModelMetadata(const ModelInfo& model, bool embeddings, inference::ModelMetadataResponse& response) {
  response.set_name(model.spec.name);
  response.add_versions(kOipVersion);
  response.set_platform(PlatformOf(model));
  for (const OipOption& option : OipOptions()) {
    if ((option.places & kOipTensor) == 0) continue;
    auto* input = response.add_inputs();
    input->set_name(std::string(option.name));
    input->set_datatype(std::string(option.datatype));
    input->add_shape(option.list ? kAnyLength : 1);
  }
  for (const Output& o : OutputsOf(model, embeddings)) {
    auto* output = response.add_outputs();
    output->set_name(std::string(o.name));
    output->set_datatype(std::string(o.datatype));
    output->add_shape(o.length);
  }
}

void EncodeModelConfig(const ModelInfo& model, bool embeddings, inference::ModelConfig& config) {
  config.set_name(model.spec.name);
  config.set_platform(PlatformOf(model));
  config.set_backend("sluice");
  config.set_max_batch_size(0);
  config.mutable_model_transaction_policy()->set_decoupled(true);
  for (const OipOption& option : OipOptions()) {
    if ((option.places & kOipTensor) == 0) continue;
    auto* input = config.add_input();
    input->set_name(std::string(option.name));
    input->set_data_type(TypeOf(option.datatype));
    input->add_dims(option.list ? kAnyLength : 1);
    input->set_optional(option.name != "text_input");
  }
  for (const Output& o : OutputsOf(model, embeddings)) {
    auto* output = config.add_output();
    output->set_name(std::string(o.name));
    output->set_data_type(TypeOf(o.datatype));
    output->add_dims(o.length);
  }
}

void EncodeModelIndex(const ModelInfo& model, inference::RepositoryIndexResponse::ModelIndex& index) {
  index.set_name(model.spec.name);
  index.set_version(kOipVersion);
  switch (model.state) {
    case ModelState::kReady:
      return index.set_state("READY");
    case ModelState::kLoading:
      return index.set_state("LOADING");
    case ModelState::kUnloading:
      return index.set_state("UNLOADING");
    case ModelState::kUnloaded:
    case ModelState::kFailed:
      index.set_state("UNAVAILABLE");
      index.set_reason(model.error.ok() ? std::string(ModelStateName(model.state))
                                        : std::string(model.error.message()));
  }
}

}  // namespace sluice::services
