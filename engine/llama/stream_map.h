// Which KV stream of libllama holds which sequence. libllama computes several sequences in one pass over the weights
// only when their streams are neighbours: with every other stream idle, 64 sequences decode at a fifth of the speed.
// So sequences that run together are moved together, when moving costs less than the passes it saves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace sluice::engine {

// Exchange the contents of two streams.
struct StreamSwap {
  int active = 0;  // its sequence takes part in the step
  int idle = 0;    // its sequence, if any, does not
};

// Thread-compatible, pure bookkeeping. Every sequence always has a stream of its own.
class StreamMap {
 public:
  // `tokens_per_pass`: moving that many tokens takes as long as one more pass over the weights.
  StreamMap(int sequences, double tokens_per_pass);

  int StreamOf(SequenceId sequence) const { return stream_of_[static_cast<size_t>(sequence)]; }

  // The swaps after which the streams of `active` (distinct) are neighbours; empty when they are already, or when the
  // swaps do not pay within this very step. `lengths`: tokens by sequence.
  std::vector<StreamSwap> Plan(std::span<const SequenceId> active, std::span<const int> lengths) const;

  SequenceId SequenceAt(int stream) const { return sequence_at_[static_cast<size_t>(stream)]; }
  void Apply(const StreamSwap& swap);

 private:
  const double tokens_per_pass_;
  std::vector<int> stream_of_;           // by sequence
  std::vector<SequenceId> sequence_at_;  // by stream
};

}  // namespace sluice::engine
