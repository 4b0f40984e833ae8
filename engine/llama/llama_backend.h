// The llama.cpp backend; this folder is the only user of libllama. Reference: include/llama.h of the pinned release.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"

namespace sluice::engine {

struct LlamaOptions {
  std::string path;              // GGUF file
  KvGeometry geometry;           // one KV stream per slot (not kv_unified: every sequence would scan all cells)
  int threads = 2;               // compute threads
  int max_batch_tokens = 512;    // n_batch and n_ubatch
  int embedding_context = 1024;  // tokens one Embed call accepts; its context is made on first use
};

// Loads the file. Blocks for seconds; thread-safe (several loads may run). Errors never abort the process:
// NOT_FOUND (no such file), INVALID_ARGUMENT (not a model this release can run, with llama.cpp's last error line),
// RESOURCE_EXHAUSTED (KV or weights do not fit in memory).
absl::StatusOr<std::unique_ptr<Backend>> LoadLlamaBackend(const LlamaOptions& options);

// Routes libllama's log into base/log (warnings and errors; everything at debug level). Call once from main.
void InitLlamaRuntime();

// Bytes that the KV cache of `geometry` takes for the model in `facts`.
uint64_t PredictKvBytes(const ModelFacts& facts, const KvGeometry& geometry);

// Runs in a child process under limits (see engine/models/gguf_probe.h): loads the file and decodes one token.
// Prints the reason on stderr and returns a process exit code (0: fine).
int ProbeModelMain(const std::string& path);

// Requantizes `from` to Q8_0 at `to` (scripts/setup uses it once for the default model). Blocks for seconds.
absl::Status QuantizeToQ8(const std::string& from, const std::string& to, int threads);

}  // namespace sluice::engine
