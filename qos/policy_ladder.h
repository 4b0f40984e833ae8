// When a policy climbs its ladder, stays, or leaves it: pure decisions over a verdict and a time.
#pragma once

#include <deque>
#include <string_view>

#include "base/clock.h"
#include "qos/policy.h"

namespace sluice::qos {

// What the objectives of a policy say together.
enum class Verdict {
  kUnknown,    // none is violated, but of one too little is known
  kViolated,   // at least one is
  kHeld,       // all hold, but not all by the recovery margin
  kRecovered,  // all hold by the margin
};

// Why a policy that is violated, or has recovered, does not step.
enum class Hold {
  kNone,
  kViolatedFor,  // the violation is too young for the first step
  kCooldown,     // the last step or repeated action is
  kCap,          // max_actions in action_window
  kLoop,         // turning around once more would exceed max_reversals in action_window
  kTop,          // there is no higher step, and nothing to repeat
};
std::string_view HoldName(Hold hold);  // "", "violated_for", "cooldown", "cap", "loop", "top"

// A value. Memory: moves of the last action_window; at most 2 × max_actions and the ladder's length.
struct LadderState {
  int step = 0;
  MonoTime since{};  // of the present step
  Verdict verdict = Verdict::kUnknown;
  MonoTime verdict_since{};
  struct Move {
    MonoTime at;
    int direction = 0;      // +1, -1; 0: once-actions were repeated
    bool reversal = false;  // against the direction of the step before it, within action_window of that
  };
  std::deque<Move> moves;         // oldest first
  std::optional<Move> last_step;  // these two however long ago
  std::optional<MonoTime> last_move;
};

struct LadderDecision {
  int direction = 0;    // +1: a step up was taken, -1: down
  bool repeat = false;  // do the once-actions below the (new) step again
  Hold hold = Hold::kNone;
};

// How long a policy may be unknown before it leaves its ladder step by step, as if it had recovered: twice its longest
// window (all data of its own doing has fallen out by then), and recovered_for. Else a policy that sheds all that it
// measures would shed for ever.
Duration SilenceBeforeLeaving(const Policy& policy);

// Updates `state` with what is true at `now`. Rules:
// - up: violated; from step 0 only after violated_for without a break; then once each cooldown, if the cap lets it.
//   At the top, and with each further step, the once-actions below are repeated, also once each cooldown.
// - down: recovered (or silent) for recovered_for without a break, since the last step as well, and the cooldown is
// over.
// - held and unknown change nothing. A step that turns around is not taken when that makes a loop.
// Calls come in order of `now`; how often does not matter for correctness, a step waits for the next call.
LadderDecision Advance(const Policy& policy, Verdict verdict, MonoTime now, LadderState* state);

}  // namespace sluice::qos
