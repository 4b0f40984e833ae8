#include "rollout/flag_replica.h"

#include <array>
#include <utility>

#include "fmt/format.h"

namespace sluice::rollout {

namespace {

AnalysisOptions OptionsOf(const RolloutSpec& spec) {
  AnalysisOptions options = spec.analysis;
  options.alpha *= FlagReplica::kShareOfAlpha;
  return options;
}

}  // namespace

FlagReplica::FlagReplica(RolloutSpec spec, ArmRecorder& recorder)
    : spec_(std::move(spec)), recorder_(recorder), analysis_(OptionsOf(spec_)) {
  recorder_.TripAfter(spec_.failures_in_a_row);
}

void FlagReplica::SetSpec(RolloutSpec spec) {
  spec_ = std::move(spec);
  recorder_.TripAfter(spec_.failures_in_a_row);
}

void FlagReplica::Absorb(const RolloutState& state) {
  const uint64_t attempt = view_.state().attempt;
  view_.Absorb(state);
  if (view_.state().attempt == attempt) return;
  analysis_ = Analysis(OptionsOf(spec_));
  recorder_.Reset();
  windows_.clear();
}

Serving FlagReplica::ToServe(Duration lost_for) const {
  const RolloutState& state = view_.state();
  Serving serving{.begun = state.attempt > 0,
                  .bps = view_.bps(),
                  .by = fmt::format("rollout {}", state.attempt_id()),
                  .epoch = state.epoch};
  const bool back = state.phase == Phase::kRolledBack && serving.bps == 0;
  serving.rolled_back = serving.begun && (back || view_.tripped());
  if (spec_.decay_after > Duration::zero() && lost_for >= spec_.decay_after) serving.bps = 0;
  return serving;
}

void FlagReplica::EndWindow(int64_t index, Duration length, const std::string& replica, const Serving& served,
                            bool mixed, double rss_bytes) {
  Window window = recorder_.Cut();
  window.attempt = view_.state().attempt_id();
  window.replica = replica;
  window.index = index;
  window.length = length;
  window.canary_bps = served.bps;
  window.mixed = mixed;
  window.rss_bytes = rss_bytes;
  analysis_.Add(std::array<Window, 1>{window});
  windows_.push_back(std::move(window));
  if (windows_.size() > ReplicaRecord::kMaxWindows) windows_.pop_front();
}

std::string FlagReplica::ReasonToTrip() const {
  if (view_.bps() == 0) return "";
  if (recorder_.tripped()) return "failures in a row of the canary";
  const Judgement judgement = analysis_.Judge();
  return judgement.verdict == Verdict::kFail ? judgement.cause : "";
}

}  // namespace sluice::rollout
