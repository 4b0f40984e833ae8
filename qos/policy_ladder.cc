#include "qos/policy_ladder.h"

#include <algorithm>
#include <array>

namespace sluice::qos {
namespace {

constexpr std::array<std::string_view, 6> kHolds = {"", "violated_for", "cooldown", "cap", "loop", "top"};

void Prune(const Policy& policy, MonoTime now, LadderState* state) {
  while (!state->moves.empty() && now - state->moves.front().at >= policy.action_window) state->moves.pop_front();
}

bool InCooldown(const Policy& policy, MonoTime now, const LadderState& state) {
  return state.last_move && now - *state.last_move < policy.cooldown;
}

bool TurnsAround(const Policy& policy, MonoTime now, const LadderState& state, int direction) {
  return state.last_step && state.last_step->direction != direction && now - state.last_step->at < policy.action_window;
}

// The step may not be taken, because it would be one reversal too many.
bool IsLoop(const Policy& policy, MonoTime now, const LadderState& state, int direction) {
  if (!TurnsAround(policy, now, state, direction)) return false;
  const auto reversals =
      std::count_if(state.moves.begin(), state.moves.end(), [](const LadderState::Move& m) { return m.reversal; });
  return reversals >= policy.max_reversals;
}

void Step(const Policy& policy, MonoTime now, int direction, LadderState* state) {
  const LadderState::Move move{now, direction, TurnsAround(policy, now, *state, direction)};
  state->step += direction;
  state->since = now;
  state->moves.push_back(move);
  state->last_step = move;
  state->last_move = now;
}

LadderDecision Climb(const Policy& policy, MonoTime now, LadderState* state) {
  if (policy.ladder.empty()) return {};
  if (state->step == 0 && now - state->verdict_since < policy.violated_for) return {.hold = Hold::kViolatedFor};
  const auto below = policy.ladder.begin() + state->step;
  const bool top = below == policy.ladder.end();
  const bool once = std::any_of(policy.ladder.begin(), below, [](const Action& a) { return IsOnce(a.kind); });
  if (top && !once) return {.hold = Hold::kTop};
  if (InCooldown(policy, now, *state)) return {.hold = Hold::kCooldown};
  const auto actions = std::count_if(state->moves.begin(), state->moves.end(),
                                     [](const LadderState::Move& m) { return m.direction >= 0; });
  if (actions >= policy.max_actions) return {.hold = Hold::kCap};
  if (top) {
    state->moves.push_back({now, 0, false});
    state->last_move = now;
    return {.repeat = true};
  }
  if (IsLoop(policy, now, *state, +1)) return {.hold = Hold::kLoop};
  Step(policy, now, +1, state);
  return {.direction = +1, .repeat = once};
}

LadderDecision Leave(const Policy& policy, MonoTime now, Duration after, LadderState* state) {
  if (state->step == 0 || now - state->verdict_since < after || now - state->since < policy.recovered_for) return {};
  if (InCooldown(policy, now, *state)) return {.hold = Hold::kCooldown};
  if (IsLoop(policy, now, *state, -1)) return {.hold = Hold::kLoop};
  Step(policy, now, -1, state);
  return {.direction = -1};
}

}  // namespace

std::string_view HoldName(Hold hold) { return kHolds.at(static_cast<size_t>(hold)); }

Duration SilenceBeforeLeaving(const Policy& policy) {
  Duration longest = Duration::zero();
  for (const Objective& objective : policy.objectives) {
    if (KindOf(objective.signal) != SignalKind::kLevel) longest = std::max(longest, objective.window);
  }
  return 2 * longest + policy.recovered_for;
}

LadderDecision Advance(const Policy& policy, Verdict verdict, MonoTime now, LadderState* state) {
  Prune(policy, now, state);
  if (verdict != state->verdict) {
    state->verdict = verdict;
    state->verdict_since = now;
  }
  switch (verdict) {
    case Verdict::kViolated:
      return Climb(policy, now, state);
    case Verdict::kRecovered:
      return Leave(policy, now, policy.recovered_for, state);
    case Verdict::kUnknown:
      return Leave(policy, now, SilenceBeforeLeaving(policy), state);
    case Verdict::kHeld:
      return {};
  }
  return {};
}

}  // namespace sluice::qos
