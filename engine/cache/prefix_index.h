// Which sequence already holds the longest prefix of a prompt? A radix tree over token ids; its leaves are
// KV sequences, running or idle. Idea: RadixAttention, Zheng et al. 2024, arXiv 2312.07104.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/backend.h"

namespace sluice::engine {

// Thread-safety: engine thread only. Memory: at most the tokens of the sequences inserted.
// Prefixes of different `salt`s (model adapter, tenant) never match each other.
class PrefixIndex {
 public:
  PrefixIndex();
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // Declares that `sequence` holds (or is about to hold) `tokens`; replaces what it declared before.
  void Set(SequenceId sequence, std::string_view salt, std::span<const TokenId> tokens);
  // Appends to what `sequence` declared (tokens it generated). Requires an earlier Set.
  void Extend(SequenceId sequence, std::span<const TokenId> tokens);
  void Remove(SequenceId sequence);

  struct Match {
    SequenceId sequence = -1;  // -1: no prefix in common
    int length = 0;            // tokens in common
  };
  // Longest common prefix over all sequences of `salt`. Ties: the lowest sequence id. O(length of the match).
  Match Longest(std::string_view salt, std::span<const TokenId> tokens) const;

  // Every sequence that shares at least one token, with its own common length; longest first, ties by id.
  // The caller picks among them by how much each has computed. At most `limit` entries.
  std::vector<Match> Matches(std::string_view salt, std::span<const TokenId> tokens, size_t limit) const;

  size_t sequence_count() const;

  // What the tree holds now, counted by walking it: at most two nodes a sequence and one root a salt.
  struct Size {
    size_t nodes = 0;
    size_t tokens = 0;
  };
  Size size() const;

 private:
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

}  // namespace sluice::engine
