// What is sent: prompts, lengths, tenants, who cancels and who reads slowly. A seed gives the same sequence again.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/scenario.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// One request to come, and the turns that follow it.
struct Planned {
  Request request;
  int64_t conversation = -1;  // -1: single
  int turn = 0, turns = 1;
};

// A prompt of the scenario's own, with its own output length (0: the workload's).
struct GivenPrompt {
  std::string text;
  int max_tokens = 0;
};

// Prompts of a file: lines of text, or JSON objects {"prompt": ..., "max_tokens": ...}. INVALID_ARGUMENT: file and
// line.
absl::StatusOr<std::vector<GivenPrompt>> ReadPrompts(const std::string& path);

// Thread-compatible.
class Workload {
 public:
  // `prompts`: used in turn; empty: generated words. `label` makes request ids unique.
  Workload(const WorkloadSpec& spec, std::vector<GivenPrompt> prompts, uint64_t seed, std::string label);

  Planned Next();
  // The turn after `last`, which was answered with `answer`. Requires: last.turn + 1 < last.turns.
  Planned NextTurn(const Planned& last, const std::string& answer);

 private:
  int Draw(const LengthSpec& spec);
  std::string Words(int count);
  bool Chance(double share) { return std::uniform_real_distribution<>()(random_) < share; }
  void Fill(Request& request);

  const WorkloadSpec spec_;
  const std::vector<GivenPrompt> prompts_;
  const std::string label_;
  std::mt19937_64 random_;
  std::vector<std::string> prefixes_;
  std::vector<std::vector<int>> prefix_ids_;
  int64_t count_ = 0;
};

}  // namespace sluice::loadtest
