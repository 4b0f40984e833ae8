#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>

#include "base/status.h"
#include "engine/llama/llama_backend.h"
#include "engine/llama/llama_handles.h"
#include "engine/llama/llama_loader.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_tokenizer.h"

namespace sluice::engine {
namespace {

// Loads everything that serving will use, and computes one token.
absl::Status Probe(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(LlamaModelPtr model, LoadModelFile(path, /*check_tensors=*/true));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<LlamaTokenizer> tokenizer, LlamaTokenizer::Create(*model));
  SLUICE_RETURN_IF_ERROR(CheckCanGenerate(*model, path));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = 256;
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = 1;
  SLUICE_ASSIGN_OR_RETURN(LlamaContextPtr context, MakeContext(*model, params, path));
  const llama_token bos = llama_vocab_bos(llama_model_get_vocab(model.get()));
  LlamaBatch batch(1);
  batch.Add(bos == LLAMA_TOKEN_NULL ? 0 : bos, 0, 0, true);
  LlamaErrorCapture capture;
  if (const int result = llama_decode(context.get(), batch.get()); result != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: decoding one token failed with code {}: {}", path, result, capture.ReasonOr("no reason")));
  }
  return CheckFinite({llama_get_logits_ith(context.get(), 0), static_cast<size_t>(tokenizer->vocab_size())}, path);
}

}  // namespace

int ProbeModelMain(const std::string& path) try {
  setenv("GGML_NO_BACKTRACE", "1", 1);  // or an abort would start a debugger
  const absl::Status status = Probe(path);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s: %s\n", path.c_str(), e.what());
  return 1;
}

absl::Status QuantizeToQ8(const std::string& from, const std::string& to, int threads) {
  InitLlamaRuntime();
  if (!std::filesystem::exists(from)) return absl::NotFoundError(fmt::format("{}: no such file", from));
  const std::string partial = to + ".partial";  // `to` appears whole or not at all
  LlamaErrorCapture capture;
  try {
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = threads;
    params.ftype = LLAMA_FTYPE_MOSTLY_Q8_0;
    params.allow_requantize = true;
    if (llama_model_quantize(from.c_str(), partial.c_str(), &params) == 0) {
      std::filesystem::rename(partial, to);
      return absl::OkStatus();
    }
    std::filesystem::remove(partial);
    return absl::InvalidArgumentError(fmt::format("{}: {}", from, capture.ReasonOr("libllama gave no reason")));
  } catch (const std::exception& e) {
    return absl::InternalError(fmt::format("quantizing {} to {}: {}", from, to, e.what()));
  }
}

}  // namespace sluice::engine
