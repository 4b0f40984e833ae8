#include "engine/scheduler/slot_table.h"

#include <algorithm>

#include "base/check.h"

namespace sluice::engine {
namespace {

int UsableLength(const Slot& slot, const PrefixIndex::Match& match, int prompt_size) {
  return std::min({match.length, slot.computed, prompt_size - 1});
}

// Taking over an idle slot in place loses what it holds beyond the prefix; that is fine when it is little compared to
// what is kept (a conversation's next turn, a repeated prompt).
bool CheapToTakeOver(const Slot& slot, int usable) { return slot.computed - usable <= std::max(usable / 2, 32); }

SequenceId ChooseVictim(std::span<const Slot> slots, SequenceId spare) {
  SequenceId best = -1;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].in_use || static_cast<SequenceId>(i) == spare) continue;
    const bool better = best < 0 || (slots[best].computed > 0 &&
                                     (slots[i].computed == 0 || slots[i].last_used < slots[best].last_used));
    if (better) best = static_cast<SequenceId>(i);
    if (slots[best].computed == 0) break;  // the lowest empty one
  }
  return best;
}

}  // namespace

Reusable FindReusable(std::span<const Slot> slots, std::span<const PrefixIndex::Match> matches, int prompt_size) {
  Reusable r;
  for (const PrefixIndex::Match& m : matches) {
    const Slot& slot = slots[m.sequence];
    r.now = std::max(r.now, UsableLength(slot, m, prompt_size));
    if (slot.in_use) r.upcoming = std::max(r.upcoming, std::min(m.length, prompt_size - 1));
  }
  return r;
}

Placement PlaceSequence(std::span<const Slot> slots, std::span<const PrefixIndex::Match> matches, int prompt_size,
                        int min_reuse, bool can_copy) {
  SequenceId source = -1;
  int usable = 0;
  for (const PrefixIndex::Match& m : matches) {
    const Slot& slot = slots[m.sequence];
    if (slot.in_use && !can_copy) continue;
    const int length = UsableLength(slot, m, prompt_size);
    // Among equals an idle slot is better: it may be taken over without a copy.
    if (length > usable || (length == usable && source >= 0 && slots[source].in_use && !slot.in_use)) {
      source = m.sequence;
      usable = length;
    }
  }
  if (usable < min_reuse) source = -1;

  Placement p;
  if (source >= 0 && !slots[source].in_use && (!can_copy || CheapToTakeOver(slots[source], usable))) {
    return {.slot = source, .copy_from = -1, .reused = usable};
  }
  p.slot = ChooseVictim(slots, source);
  if (p.slot < 0) {  // only the source itself is free
    SLUICE_CHECK(source >= 0 && !slots[source].in_use, "PlaceSequence needs a free slot");
    return {.slot = source, .copy_from = -1, .reused = usable};
  }
  if (source >= 0) {
    p.copy_from = source;
    p.reused = usable;
  }
  return p;
}

}  // namespace sluice::engine
