#include "engine/llama/stream_map.h"

#include <numeric>
#include <utility>

namespace sluice::engine {

StreamMap::StreamMap(int sequences, double tokens_per_pass)
    : tokens_per_pass_(tokens_per_pass),
      stream_of_(static_cast<size_t>(sequences)),
      sequence_at_(static_cast<size_t>(sequences)) {
  std::iota(stream_of_.begin(), stream_of_.end(), 0);
  std::iota(sequence_at_.begin(), sequence_at_.end(), 0);
}

std::vector<StreamSwap> StreamMap::Plan(std::span<const SequenceId> active, std::span<const int> lengths) const {
  const size_t streams = sequence_at_.size();
  std::vector<bool> is_active(streams, false);
  for (SequenceId sequence : active) is_active[static_cast<size_t>(StreamOf(sequence))] = true;
  int passes = 0;
  for (size_t s = 0; s < streams; ++s) passes += is_active[s] && (s == 0 || !is_active[s - 1]) ? 1 : 0;
  if (passes <= 1) return {};

  // Tokens that move when the active streams gather in [start, start + n): the active ones from outside the window,
  // and the idle ones from inside it.
  const auto tokens = [&](size_t s) { return static_cast<int64_t>(lengths[static_cast<size_t>(sequence_at_[s])]); };
  const size_t n = active.size();
  int64_t cost = 0;
  for (size_t s = 0; s < streams; ++s) cost += is_active[s] == (s >= n) ? tokens(s) : 0;
  int64_t best_cost = cost;
  size_t best_start = 0;
  for (size_t start = 1; start + n <= streams; ++start) {
    const size_t left = start - 1, entered = start + n - 1;
    cost += is_active[left] ? tokens(left) : -tokens(left);
    cost += is_active[entered] ? -tokens(entered) : tokens(entered);
    if (cost < best_cost) {
      best_cost = cost;
      best_start = start;
    }
  }
  if (static_cast<double>(best_cost) > tokens_per_pass_ * (passes - 1)) return {};

  std::vector<StreamSwap> swaps;
  size_t idle = best_start;
  for (size_t s = 0; s < streams; ++s) {
    if (!is_active[s] || (s >= best_start && s < best_start + n)) continue;
    while (is_active[idle]) ++idle;
    swaps.push_back({static_cast<int>(s), static_cast<int>(idle++)});
  }
  return swaps;
}

void StreamMap::Apply(const StreamSwap& swap) {
  SequenceId& a = sequence_at_[static_cast<size_t>(swap.active)];
  SequenceId& b = sequence_at_[static_cast<size_t>(swap.idle)];
  std::swap(a, b);
  stream_of_[static_cast<size_t>(a)] = swap.active;
  stream_of_[static_cast<size_t>(b)] = swap.idle;
}

}  // namespace sluice::engine
