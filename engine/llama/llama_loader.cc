#include "engine/llama/llama_loader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <exception>
#include <filesystem>

#include "base/strings.h"
#include "engine/llama/llama_backend.h"
#include "engine/llama/llama_log.h"

namespace sluice::engine {
namespace {

// libllama pads the context of a sequence to this many tokens.
constexpr int kContextPadding = 256;

absl::Status Classify(const std::string& reason, const std::string& what) {
  const std::string message = fmt::format("{}: {}", what, reason);
  if (reason.find("allocate") != std::string::npos || reason.find("bad_alloc") != std::string::npos) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InvalidArgumentError(message);
}

absl::Status CheckFile(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return absl::NotFoundError(fmt::format("{}: no such file", path));
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(fmt::format("{}: not a regular file", path));
  }
  if (std::filesystem::file_size(path, error) == 0 && !error) {
    return absl::InvalidArgumentError(fmt::format("{}: the file is empty", path));
  }
  return absl::OkStatus();
}

std::string MetaString(const llama_model& model, const std::string& key) {
  char buffer[256];
  return llama_model_meta_val_str(&model, key.c_str(), buffer, sizeof(buffer)) < 0 ? "" : buffer;
}

}  // namespace

absl::StatusOr<LlamaModelPtr> LoadModelFile(const std::string& path, bool check_tensors) {
  InitLlamaRuntime();
  if (absl::Status status = CheckFile(path); !status.ok()) return status;
  LlamaErrorCapture capture;
  try {
    llama_model_params params = llama_model_default_params();
    params.check_tensors = check_tensors;
    LlamaModelPtr model(llama_model_load_from_file(path.c_str(), params));
    if (model == nullptr) return Classify(capture.ReasonOr("libllama gave no reason"), path);
    return model;
  } catch (const std::exception& e) {
    return Classify(e.what(), path);
  }
}

int64_t ArchitectureNumber(const llama_model& model, const std::string& key, int64_t fallback) {
  const std::string text = MetaString(model, MetaString(model, "general.architecture") + "." + key);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : fallback;
}

ModelFacts ReadFacts(const llama_model& model) {
  ModelFacts facts;
  facts.architecture = MetaString(model, "general.architecture");
  char description[128];
  llama_model_desc(&model, description, sizeof(description));
  facts.description = description;
  facts.file_type = llama_ftype_name(llama_model_ftype(&model));
  facts.weight_bytes = llama_model_size(&model);
  facts.parameter_count = llama_model_n_params(&model);
  facts.vocab_size = llama_vocab_n_tokens(llama_model_get_vocab(&model));
  facts.embedding_size = llama_model_n_embd(&model);
  facts.train_context = llama_model_n_ctx_train(&model);
  facts.layer_count = llama_model_n_layer(&model);
  const int64_t heads = llama_model_n_head(&model);
  const int64_t head_size = heads > 0 ? facts.embedding_size / heads : 0;
  const int64_t key_size = ArchitectureNumber(model, "attention.key_length", head_size);
  const int64_t value_size = ArchitectureNumber(model, "attention.value_length", head_size);
  constexpr int64_t kF16Bytes = 2;
  facts.kv_bytes_per_token =
      static_cast<uint64_t>(facts.layer_count * llama_model_n_head_kv(&model) * (key_size + value_size) * kF16Bytes);
  return facts;
}

int RoundUpSlotContext(int tokens) { return (tokens + kContextPadding - 1) / kContextPadding * kContextPadding; }

uint64_t PredictKvBytes(const ModelFacts& facts, const KvGeometry& geometry) {
  return facts.kv_bytes_per_token * static_cast<uint64_t>(geometry.slots) *
         static_cast<uint64_t>(RoundUpSlotContext(geometry.slot_context));
}

absl::Status CheckCanGenerate(const llama_model& model, const std::string& path) {
  if (llama_model_has_encoder(&model) || !llama_model_has_decoder(&model) || llama_model_is_diffusion(&model) ||
      MetaString(model, MetaString(model, "general.architecture") + ".attention.causal") == "false") {
    return absl::InvalidArgumentError(fmt::format("{}: does not generate text token by token", path));
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(std::span<const float> logits, const std::string& path) {
  for (float x : logits) {
    if (!std::isfinite(x)) return absl::InvalidArgumentError(fmt::format("{}: computes non-finite logits", path));
  }
  return absl::OkStatus();
}

absl::Status CheckFitsInMemory(const ModelFacts& facts, const KvGeometry& geometry) {
  const uint64_t memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t kv = PredictKvBytes(facts, geometry);
  if (kv <= memory) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("{} slots of {} tokens need {} MiB of KV cache; the machine has {} MiB", geometry.slots,
                  geometry.slot_context, kv >> 20, memory >> 20));
}

absl::StatusOr<LlamaContextPtr> MakeContext(llama_model& model, const llama_context_params& params,
                                            const std::string& what) {
  LlamaErrorCapture capture;
  try {
    LlamaContextPtr context(llama_init_from_model(&model, params));
    if (context == nullptr) return Classify(capture.ReasonOr("libllama gave no reason"), what);
    return context;
  } catch (const std::exception& e) {
    return Classify(e.what(), what);
  }
}

}  // namespace sluice::engine
