#include "rollout/flag_leader.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "rollout/json_fields.h"
#include "rollout/window_clock.h"

namespace sluice::rollout {

using nlohmann::json;

namespace {

AnalysisOptions Half(AnalysisOptions options) {
  options.alpha /= 2;  // the other half: FlagReplica
  return options;
}

}  // namespace

FlagLeader::FlagLeader(AnalysisOptions options) : options_(Half(std::move(options))), analysis_(options_) {}

void FlagLeader::Begin(const RolloutState& state) {
  if (attempt_ != state.attempt_id()) {
    analysis_ = Analysis(options_);
    attempt_ = state.attempt_id();
    weighed_ = 0;
    last_seen_.clear();
    hold_.clear();
    stage_epoch_ = 0;
  }
  if (stage_epoch_ != 0 && stage_ == state.stage) return;
  stage_ = state.stage;
  stage_epoch_ = state.epoch;
  canary_events_ = baseline_events_ = 0;
  analysis_.OnStage(state.bps);
}

std::string FlagLeader::Missing(int64_t index) const {
  for (const auto& [replica, seen] : last_seen_) {
    if (seen < index) return fmt::format("no telemetry of replica {} for {} windows", replica, index - seen);
  }
  return "";
}

bool FlagLeader::Weigh(const std::vector<ReplicaRecord>& records, const RolloutState& state, Duration length,
                       WallTime now) {
  Begin(state);
  const int64_t newest = WindowIndex(now, length) - 1 - kLag;
  if (weighed_ == 0) weighed_ = begun_ = newest - 1;  // what was before belongs to nobody
  if (newest <= weighed_) return false;
  hold_.clear();
  std::map<int64_t, std::vector<Window>> by_index;
  for (const ReplicaRecord& record : records) {
    const Duration off = record.now - now, most = kMaxClockOffset * length;
    if (off > most || -off > std::max(most, kLate)) {
      hold_ = fmt::format("the clock of replica {} is {:.0f} s off", record.replica, ToSeconds(off));
      continue;
    }
    const auto of = record.flags.find(state.flag);
    if (of == record.flags.end()) continue;
    for (const Window& window : of->second.windows) {
      if (window.attempt != attempt_ || window.length != length) continue;
      int64_t& seen = last_seen_.try_emplace(record.replica, window.index).first->second;
      seen = std::max(seen, window.index);
      if (window.index > weighed_ && window.index <= newest) by_index[window.index].push_back(window);
    }
  }
  std::erase_if(last_seen_, [newest](const auto& seen) { return seen.second < newest - kMissed; });
  for (auto& [index, windows] : by_index) {
    for (const Window& window : windows) {
      if (window.mixed) continue;
      baseline_events_ += window.arms[static_cast<size_t>(Arm::kBaseline)].events;
      canary_events_ += window.arms[static_cast<size_t>(Arm::kCanary)].events;
    }
    analysis_.Add(windows);
  }
  weighed_ = newest;
  if (hold_.empty()) hold_ = Missing(newest);
  if (hold_.empty() && last_seen_.empty() && newest > begun_ + kMissed) hold_ = "no telemetry of any replica";
  return true;
}

Observation FlagLeader::Observe(const std::vector<ReplicaRecord>& records, const RolloutState& state) const {
  const Judgement judgement = analysis_.Judge();
  Observation seen{.verdict = judgement.verdict,
                   .cause = judgement.cause,
                   .hold = attempt_ == state.attempt_id() ? hold_ : "",
                   .canary_events = canary_events_,
                   .baseline_events = baseline_events_,
                   .baseline_expected = state.bps < kAllBps};
  if (attempt_ != state.attempt_id()) seen.verdict = Verdict::kInconclusive;
  if (seen.hold.empty()) seen.hold = judgement.hold;
  seen.everybody_follows =
      !records.empty() && std::all_of(records.begin(), records.end(), [&state](const ReplicaRecord& record) {
        const auto of = record.flags.find(state.flag);
        return of == record.flags.end() || of->second.epoch >= state.epoch;
      });
  return seen;
}

std::string FlagLeader::Encode() const {
  const json object = {{"attempt", attempt_},
                       {"stage", stage_},
                       {"stage_epoch", stage_epoch_},
                       {"weighed", weighed_},
                       {"canary_events", canary_events_},
                       {"baseline_events", baseline_events_},
                       {"last_seen", last_seen_},
                       {"analysis", analysis_.Encode()}};
  return object.dump();
}

absl::Status FlagLeader::Restore(std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  FlagLeader restored(options_);
  JsonFields fields(object);
  std::string analysis;
  fields.Text("attempt", &restored.attempt_);
  fields.Number("stage", &restored.stage_);
  fields.Number("stage_epoch", &restored.stage_epoch_);
  fields.Number("weighed", &restored.weighed_);
  fields.Number("canary_events", &restored.canary_events_);
  fields.Number("baseline_events", &restored.baseline_events_);
  fields.Text("analysis", &analysis);
  const json* const seen = fields.Find("last_seen");
  if (seen == nullptr || !seen->is_object()) fields.Fail();
  if (!fields.good()) return absl::DataLossError("is no evidence of a rollout");
  for (const auto& [replica, index] : seen->items()) {
    if (index.is_number_integer()) restored.last_seen_[replica] = index.get<int64_t>();
  }
  auto decoded = Analysis::Decode(options_, analysis);
  if (!decoded.ok()) return decoded.status();
  analysis_ = *std::move(decoded);
  attempt_ = restored.attempt_;
  stage_ = restored.stage_;
  stage_epoch_ = restored.stage_epoch_;
  weighed_ = restored.weighed_;
  canary_events_ = restored.canary_events_;
  baseline_events_ = restored.baseline_events_;
  last_seen_ = std::move(restored.last_seen_);
  return absl::OkStatus();
}

}  // namespace sluice::rollout
