#include "rollout/rollout_machine.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

namespace sluice::rollout {
namespace {

// One change of the state: epoch, history, times.
class Move {
 public:
  Move(const RolloutSpec& spec, RolloutState state, WallTime now) : spec_(spec), next_(std::move(state)), now_(now) {}

  RolloutState To(Phase phase, std::string cause) {
    ++next_.epoch;
    next_.history.push_back(
        {.when = now_, .from = next_.phase, .to = phase, .bps = next_.bps, .epoch = next_.epoch, .cause = cause});
    if (next_.history.size() > RolloutState::kMaxHistory) next_.history.erase(next_.history.begin());
    next_.phase = phase;
    next_.since = now_;
    next_.cause = std::move(cause);
    return std::move(next_);
  }

  RolloutState ToStage(size_t stage, std::string cause) {
    next_.stage = stage;
    next_.bps = spec_.Share(stage);
    next_.stage_since = now_;
    return To(Phase::kPromoting, std::move(cause));
  }

  // What a pass, or a person's word, leads to.
  RolloutState Onward(std::string cause) {
    if (next_.stage + 1 < spec_.stages.size()) return ToStage(next_.stage + 1, std::move(cause));
    return To(Phase::kComplete, std::move(cause));
  }

  RolloutState Back(bool instant, std::string cause) {
    const bool gradual = !instant && spec_.rollback == RollbackStyle::kGradual && next_.stage > 0;
    next_.bps = gradual ? std::min(next_.bps, spec_.Share(next_.stage - 1)) : 0;
    if (gradual) --next_.stage;
    next_.stage_since = now_;
    return To(Phase::kRolledBack, std::move(cause));
  }

  RolloutState NewAttempt(bool by_itself, std::string cause) {
    ++next_.attempt;
    next_.retries = by_itself ? next_.retries + 1 : 0;
    next_.stage = 0;
    next_.bps = 0;
    next_.stage_since = now_;
    return To(Phase::kPending, std::move(cause));
  }

 private:
  const RolloutSpec& spec_;
  RolloutState next_;
  const WallTime now_;
};

bool Reached(const RolloutSpec& spec, const RolloutState& state, const Observation& seen) {
  const uint64_t wanted = spec.stages[state.stage].min_samples;
  return seen.canary_events >= wanted && (!seen.baseline_expected || seen.baseline_events >= wanted);
}

std::string Missing(const RolloutSpec& spec, const RolloutState& state, const Observation& seen) {
  if (Reached(spec, state, seen)) return seen.cause.empty() ? "the evidence does not decide yet" : seen.cause;
  const uint64_t wanted = spec.stages[state.stage].min_samples;
  return fmt::format("too few samples: {} of the canary and {} of the baseline, wanted {} each", seen.canary_events,
                     seen.baseline_events, wanted);
}

// A stage whose evidence is being gathered.
std::optional<RolloutState> Weigh(const RolloutSpec& spec, const RolloutState& state, const Observation& seen,
                                  WallTime now) {
  Move move(spec, state, now);
  if (!seen.hold.empty()) {
    if (state.phase == Phase::kHolding) return std::nullopt;
    return move.To(Phase::kHolding, seen.hold);
  }
  const bool rested = now - state.stage_since >= spec.stages[state.stage].dwell;
  const bool passed = rested && seen.verdict == Verdict::kPass && Reached(spec, state, seen);
  if (passed && spec.promotion == Promotion::kAutomatic) return move.Onward(seen.cause);
  if (passed) {
    if (state.phase == Phase::kHolding) return std::nullopt;
    return move.To(Phase::kHolding, "passed; waits for somebody to promote it");
  }
  if (state.phase == Phase::kHolding) return move.To(Phase::kRunning, "what it was held for is over");
  if (rested && state.phase == Phase::kRunning) return move.To(Phase::kInconclusive, Missing(spec, state, seen));
  return std::nullopt;
}

std::optional<RolloutState> AfterRollbackOf(const RolloutSpec& spec, const RolloutState& state, WallTime now) {
  if (state.bps > 0) {  // gradual, on its way
    if (now - state.stage_since < spec.rollback_interval) return std::nullopt;
    return Move(spec, state, now).Back(/*instant=*/false, state.cause);
  }
  if (state.attempt == 0 || spec.after_rollback == AfterRollback::kStay) return std::nullopt;
  if (state.retries + 1 >= spec.max_attempts || now - state.since < spec.cool_down) return std::nullopt;
  return Move(spec, state, now).NewAttempt(/*by_itself=*/true, "cool-down over: another attempt");
}

std::string MinutesLeft(Duration left) { return fmt::format("{:.0f} s", std::max(1.0, ToSeconds(left))); }

absl::Status Refused(const RolloutState& state, std::string_view order, std::string_view allowed) {
  return MakeError(Reason::kRolloutRefused,
                   fmt::format("cannot {} the rollout of '{}': it is {} (attempt {}, {:g} %); {}", order, state.flag,
                               PhaseName(state.phase), state.attempt, state.bps / 100.0, allowed));
}

bool In(Phase phase, std::initializer_list<Phase> phases) {
  return std::find(phases.begin(), phases.end(), phase) != phases.end();
}

absl::StatusOr<RolloutState> Started(const RolloutSpec& spec, const RolloutState& state, const std::string& cause,
                                     bool force, WallTime now) {
  Move move(spec, state, now);
  if (state.phase == Phase::kPaused) return move.To(Phase::kRunning, cause);
  if (state.phase != Phase::kRolledBack) return Refused(state, "start", "one rollout of a flag at a time");
  if (state.bps > 0) return Refused(state, "start", "it is still on its way down");
  const Duration rested = now - state.since;
  if (state.attempt > 0 && !force && rested < spec.cool_down) {
    return Refused(
        state, "start",
        fmt::format("the cool-down lasts another {}; --force starts it anyway", MinutesLeft(spec.cool_down - rested)));
  }
  return move.NewAttempt(/*by_itself=*/false, cause);
}

// The spec may have lost stages since the rollout came to this one: it is then at the last.
RolloutState Fitted(const RolloutSpec& spec, RolloutState state) {
  state.stage = std::min(state.stage, spec.stages.size() - 1);
  return state;
}

}  // namespace

std::optional<RolloutState> Advance(const RolloutSpec& spec, const RolloutState& before, const Observation& seen,
                                    WallTime now) {
  const RolloutState state = Fitted(spec, before);
  const bool down = In(state.phase, {Phase::kPending, Phase::kRolledBack});
  Move move(spec, state, now);
  if (!down && !seen.trip.empty()) return move.Back(/*instant=*/true, seen.trip);
  if (!down && seen.verdict == Verdict::kFail) return move.Back(/*instant=*/false, seen.cause);
  switch (state.phase) {
    case Phase::kPending:
      if (!seen.trip.empty()) return move.Back(/*instant=*/true, seen.trip);
      return move.ToStage(0, fmt::format("attempt {} begins", state.attempt));
    case Phase::kPromoting:
      if (!seen.everybody_follows) return std::nullopt;
      return move.To(Phase::kRunning, "every replica serves it");
    case Phase::kRunning:
    case Phase::kInconclusive:
    case Phase::kHolding:
      return Weigh(spec, state, seen, now);
    case Phase::kRolledBack:
      if (!seen.trip.empty() && state.bps > 0) return move.Back(/*instant=*/true, seen.trip);
      return AfterRollbackOf(spec, state, now);
    case Phase::kPaused:
    case Phase::kComplete:
      break;
  }
  return std::nullopt;
}

absl::StatusOr<RolloutState> Obey(const RolloutSpec& spec, const RolloutState& before, Order order,
                                  const std::string& who, const std::string& why,
                                  std::optional<uint64_t> expected_epoch, bool force, WallTime now) {
  const RolloutState state = Fitted(spec, before);
  if (expected_epoch && *expected_epoch != state.epoch) {
    return MakeError(Reason::kEpochChanged,
                     fmt::format("the rollout of '{}' is at epoch {}, not {}: somebody was faster; look again",
                                 state.flag, state.epoch, *expected_epoch));
  }
  const std::string cause = fmt::format("{}: {}", who, why);
  Move move(spec, state, now);
  switch (order) {
    case Order::kStart:
      return Started(spec, state, cause, force, now);
    case Order::kPromote:
      if (!In(state.phase, {Phase::kRunning, Phase::kInconclusive, Phase::kHolding, Phase::kPaused})) {
        return Refused(state, "promote", "running, inconclusive, holding and paused ones can be");
      }
      return move.Onward(cause);
    case Order::kHold:
      if (In(state.phase, {Phase::kPending, Phase::kRolledBack, Phase::kPaused, Phase::kComplete})) {
        return Refused(state, "hold", "running, inconclusive, holding and promoting ones can be");
      }
      return move.To(Phase::kPaused, cause);
    case Order::kRollback:
      if (state.phase == Phase::kRolledBack && state.bps == 0) {
        return Refused(state, "roll back", "nothing of it is served");
      }
      return move.Back(/*instant=*/true, cause);
  }
  return absl::InternalError("an order that does not exist");
}

}  // namespace sluice::rollout
