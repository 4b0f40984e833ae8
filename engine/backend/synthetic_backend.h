// A deterministic model that needs no file: for tests, simulations and load at scale. Chosen by name only
// (`synthetic:` models), never a silent stand-in for a real one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "engine/backend/backend.h"

namespace sluice::engine {

// What a step costs. Waiting goes through `Sleeper`, so a simulation moves a manual clock instead of sleeping.
struct SyntheticOptions {
  KvGeometry geometry;
  int vocab_size = 512;  // 256 byte tokens + controls + filler; at least 300
  int embedding_size = 64;
  int max_batch_tokens = 512;
  Duration step_cost = Duration::zero();         // per Decode call
  Duration decode_row_cost = Duration::zero();   // per row of a sequence that brings one row
  Duration prefill_row_cost = Duration::zero();  // per row of a sequence that brings several
  Duration copy_cost_per_token = Duration::zero();
  // Tokens after which the model itself says end-of-generation; derived from the prompt, at most this. 0: never.
  int natural_length_max = 0;
  uint64_t seed = 1;
  // Fault injection for tests: called before each mutating call (Decode, CopyPrefix, Truncate, Restore) with its
  // index (0, 1, ...); non-OK is returned. After a fault other than RESOURCE_EXHAUSTED from Decode, the sequences of
  // that batch abort on every use but a release (or being copied or restored over).
  std::function<absl::Status(uint64_t call_index)> inject_fault;
};

using Sleeper = std::function<void(Duration)>;

// Next-token logits are a pure function of (seed, every token of the sequence so far), independent of batch
// composition, chunking or prefix copies: so greedy output is byte-identical in both pipelines and at any batch size,
// and a scheduler that mixes up sequences, positions or copies is caught at once. Output is readable made-up words and,
// now and then, a character of several byte tokens.
// Decode checks its contract (contiguous positions, capacity, row limits) and aborts when the caller breaks it.
class SyntheticBackend final : public Backend {
 public:
  // `sleep` may be empty: steps then take no time. Thread-safety as Backend.
  SyntheticBackend(const SyntheticOptions& options, Sleeper sleep);
  ~SyntheticBackend() override;

  const ModelFacts& facts() const override;
  const KvGeometry& geometry() const override;
  const BackendCapabilities& capabilities() const override;
  const Tokenizer& tokenizer() const override;
  absl::Status Decode(std::span<const BatchRow> rows) override;
  std::span<const float> Logits(int row) const override;
  absl::Status CopyPrefix(SequenceId from, SequenceId to, int length) override;
  absl::Status Truncate(SequenceId sequence, int length) override;
  absl::StatusOr<std::vector<uint8_t>> Save(SequenceId sequence) override;
  absl::Status Restore(SequenceId sequence, std::span<const uint8_t> bytes) override;
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenId> tokens) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::engine
