// The border between the engine and whatever multiplies matrices. Implementations: engine/llama (libllama),
// engine/backend/synthetic_backend (deterministic, for tests and load simulation), later engine/native.
// KV memory is owned by the backend and addressed by sequence: nothing above this interface assumes that
// sharing a prefix costs a copy, or that it is free. Decision: docs/adr/0001-backend-interface.md.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/tokenizer.h"

namespace sluice::engine {

// A KV sequence, 0 <= id < KvGeometry.slots.
using SequenceId = int32_t;

struct KvGeometry {
  int slots = 100;          // sequences that can hold KV at the same time
  int slot_context = 1024;  // tokens (prompt + output) a sequence can hold
};

struct ModelFacts {
  std::string architecture;  // "llama"
  std::string description;   // "llama 135M Q8_0"
  std::string file_type;     // quantization as the file declares it
  uint64_t weight_bytes = 0;
  uint64_t parameter_count = 0;
  uint64_t kv_bytes_per_token = 0;  // one sequence, all layers, K and V
  int vocab_size = 0;
  int embedding_size = 0;
  int train_context = 0;  // tokens the model was trained for
  int layer_count = 0;
};

struct BackendCapabilities {
  bool copy_prefix = false;    // CopyPrefix works (recurrent models cannot)
  bool copy_is_free = false;   // CopyPrefix shares pages instead of moving bytes
  bool truncate = false;       // Truncate works at any length, not only 0
  bool embeddings = false;     // Embed works
  int max_batch_tokens = 512;  // rows that one Decode call accepts
};

// One row of a step.
struct BatchRow {
  TokenId token = 0;
  int32_t position = 0;  // tokens of the sequence before this one
  SequenceId sequence = 0;
  bool want_logits = false;
};

// Thread-safety: engine thread only, unless a method says otherwise. Ownership: the caller keeps every
// argument; spans returned stay valid until the next non-const call.
class Backend {
 public:
  virtual ~Backend() = default;

  // Thread-safe, constant for the backend's life.
  virtual const ModelFacts& facts() const = 0;
  virtual const KvGeometry& geometry() const = 0;
  virtual const BackendCapabilities& capabilities() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;

  // Computes one step. Rows of a sequence are contiguous and ascending in position, starting at that
  // sequence's current length; at most capabilities().max_batch_tokens rows. Blocks for the computation.
  // RESOURCE_EXHAUSTED: no room in KV memory; nothing was changed. INTERNAL: the step failed; the KV of the
  // sequences in the batch is undefined and the caller releases them.
  virtual absl::Status Decode(std::span<const BatchRow> rows) = 0;

  // Logits of the i-th row of the last successful Decode, which asked for them: vocab_size floats.
  virtual std::span<const float> Logits(int row) const = 0;

  // Makes `to` hold the first `length` tokens of `from`, dropping what `to` held. `from` may be in use and
  // is unchanged. Requires capabilities().copy_prefix and from != to.
  virtual absl::Status CopyPrefix(SequenceId from, SequenceId to, int length) = 0;

  // Drops the tokens of `sequence` at positions >= `length`; length 0 releases it.
  virtual absl::Status Truncate(SequenceId sequence, int length) = 0;

  // Serializes and restores the KV of a sequence (same model and geometry only). UNIMPLEMENTED if not
  // supported; Restore: DATA_LOSS when the bytes do not fit this model.
  virtual absl::StatusOr<std::vector<uint8_t>> Save(SequenceId sequence) = 0;
  virtual absl::Status Restore(SequenceId sequence, std::span<const uint8_t> bytes) = 0;

  // One pooled embedding of `tokens` (embedding_size floats, L2-normalized). Uses no KV sequence.
  // INVALID_ARGUMENT: more tokens than the embedding context holds. UNIMPLEMENTED without the capability.
  virtual absl::StatusOr<std::vector<float>> Embed(std::span<const TokenId> tokens) = 0;

  // Gives back what only a running step needs (compute threads), for the engine is idle or another model's turn has
  // come; the next step takes it again. Cheap where nothing is held.
  virtual void Rest() {}
};

}  // namespace sluice::engine
