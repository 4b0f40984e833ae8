#include "rollout/rollout_state.h"

#include <array>
#include <tuple>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "rollout/json_fields.h"
#include "rollout/rollout_spec.h"

namespace sluice::rollout {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, kPhases> kNames = {"pending",   "running", "inconclusive", "holding",
                                                          "promoting", "paused",  "complete",     "rolled_back"};

int64_t Nanos(WallTime t) { return t.time_since_epoch().count(); }

void ReadPhase(JsonFields& fields, const char* name, Phase* out) {
  std::string text;
  fields.Text(name, &text);
  const std::optional<Phase> phase = ParsePhase(text);
  if (!phase) return fields.Fail();
  *out = *phase;
}

bool Read(const json& object, Transition* out) {
  JsonFields fields(object);
  fields.Time("when", &out->when);
  ReadPhase(fields, "from", &out->from);
  ReadPhase(fields, "to", &out->to);
  fields.Number("bps", &out->bps);
  fields.Number("epoch", &out->epoch);
  fields.Text("cause", &out->cause);
  return fields.good();
}

}  // namespace

std::string_view PhaseName(Phase phase) { return kNames[static_cast<size_t>(phase)]; }

std::optional<Phase> ParsePhase(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Phase>(i);
  }
  return std::nullopt;
}

std::string RolloutState::attempt_id() const { return fmt::format("{}#{}", flag, attempt); }

std::string Encode(const RolloutState& state) {
  json history = json::array();
  for (const Transition& t : state.history) {
    history.push_back({{"when", Nanos(t.when)},
                       {"from", PhaseName(t.from)},
                       {"to", PhaseName(t.to)},
                       {"bps", t.bps},
                       {"epoch", t.epoch},
                       {"cause", t.cause}});
  }
  const json object = {{"flag", state.flag},
                       {"epoch", state.epoch},
                       {"attempt", state.attempt},
                       {"phase", PhaseName(state.phase)},
                       {"stage", state.stage},
                       {"bps", state.bps},
                       {"retries", state.retries},
                       {"since", Nanos(state.since)},
                       {"stage_since", Nanos(state.stage_since)},
                       {"cause", state.cause},
                       {"history", std::move(history)}};
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<RolloutState> DecodeRolloutState(std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  RolloutState state;
  JsonFields fields(object);
  fields.Text("flag", &state.flag);
  fields.Number("epoch", &state.epoch);
  fields.Number("attempt", &state.attempt);
  ReadPhase(fields, "phase", &state.phase);
  fields.Number("stage", &state.stage);
  fields.Number("bps", &state.bps);
  fields.Number("retries", &state.retries);
  fields.Time("since", &state.since);
  fields.Time("stage_since", &state.stage_since);
  fields.Text("cause", &state.cause);
  if (fields.good() && object.contains("history") && object["history"].is_array() &&
      object["history"].size() <= RolloutState::kMaxHistory) {
    for (const json& entry : object["history"]) {
      if (!Read(entry, &state.history.emplace_back())) fields.Fail();
    }
  } else {
    fields.Fail();
  }
  if (!fields.good() || state.bps > kAllBps || state.stage >= kMaxStages) {
    return absl::DataLossError("is no state of a rollout");
  }
  return state;
}

bool ReplicaView::Absorb(const RolloutState& state) {
  const bool newer = std::tuple(state.epoch, ~state.bps) > std::tuple(state_.epoch, ~state_.bps);
  if (!newer) return false;
  state_ = state;
  std::erase_if(tripped_, [this](uint64_t attempt) { return attempt < state_.attempt; });
  return true;
}

bool ReplicaView::Trip(uint64_t attempt) {
  return attempt >= state_.attempt && attempt > 0 && tripped_.insert(attempt).second;
}

void ReplicaView::Merge(const ReplicaView& other) {
  Absorb(other.state_);
  for (const uint64_t attempt : other.tripped_) Trip(attempt);
}

}  // namespace sluice::rollout
