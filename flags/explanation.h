// Why a flag decided as it did for one context: the whole chain, for people and for FlagService.Explain.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "flags/flag.h"

namespace sluice::flags {

// One draw of a bucket.
struct DrawTrace {
  std::string salt;
  int hash_version = 2;
  std::string hash;  // first four bytes of the digest in hex
  uint32_t bucket = 0, threshold = 0;
};

struct RuleTrace {
  std::string name;
  bool matched = false;
  std::string why;  // "tenant equals "a": found "b"", or, when it matched, what it then says: "25 %"
};

// The views of `decision` point into the FlagSet that explained, which must outlive this.
struct Explanation {
  Decision decision;
  std::string flag;
  Layer definition_layer = Layer::kDefault, enabled_layer = Layer::kDefault, rollout_layer = Layer::kDefault;
  bool enabled = false;
  RolloutBps rollout_bps = 0;
  std::vector<InertValue> inert;
  std::vector<std::string> stale;    // layers whose source is out of reach; filled by FlagSources::Explain
  std::string schedule;              // "2026-01-01T00:00:00Z to open: inside"; empty: none
  std::string lists;                 // "not in allow (3 keys)"; empty: none was asked
  std::vector<RuleTrace> rules;      // those that were looked at
  std::optional<DrawTrace> split;    // the percentage
  std::optional<DrawTrace> variant;  // the choice between variants; threshold: where the chosen one's buckets end
  std::string program_error;         // of `targeting`
  std::vector<Explanation> parents;  // the parent, which holds its own; empty: none, or it was not asked

  std::string Text() const;  // a few lines, the first one as in the trailer
};

}  // namespace sluice::flags
