// The KV slots of one engine: who runs in which, and what idle ones still hold for reuse.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/cache/prefix_index.h"

namespace sluice::engine {

struct Slot {
  bool in_use = false;
  int computed = 0;        // tokens of KV it holds
  uint64_t last_used = 0;  // step number when it was left; 0: never
};

// What to do to give a sequence a slot.
struct Placement {
  SequenceId slot = -1;
  SequenceId copy_from = -1;  // -1: nothing to copy (`reused` tokens are in `slot` already, or there are none)
  int reused = 0;             // tokens of KV it starts with
};

// How much of a prompt is computed somewhere already, and how much will be soon.
struct Reusable {
  int now = 0;       // tokens that can be taken at once
  int upcoming = 0;  // tokens of the same prefix that a running prefill is about to compute
};

// Pure decisions over a snapshot of the slots. `matches`: PrefixIndex::Matches for the prompt. At least one prompt
// token is always computed, since its logits are needed.
Reusable FindReusable(std::span<const Slot> slots, std::span<const PrefixIndex::Match> matches, int prompt_size);

// Requires a slot not in use. An empty slot with the lowest number is preferred (backends compute consecutive slots
// together), then the idle one left longest ago. When the best match is an idle slot that would lose little, it is
// taken over in place; otherwise its prefix is copied.
Placement PlaceSequence(std::span<const Slot> slots, std::span<const PrefixIndex::Match> matches, int prompt_size,
                        int min_reuse, bool can_copy);

}  // namespace sluice::engine
