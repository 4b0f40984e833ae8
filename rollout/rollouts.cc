#include "rollout/rollouts.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::rollout {
namespace {

constexpr size_t kKeptEvidence = 20;  // of each flag
constexpr int kMostSteps = 8;         // of one Tick and rollout

// What the store keeps under a flag's trips.
std::string TripsOf(std::string_view flag) { return fmt::format("{}flag/{}/trip/", kRoot, flag); }

uint64_t RevisionOf(const std::map<std::string, state::Entry>& mirror, const std::string& key) {
  const auto it = mirror.find(key);
  return it == mirror.end() ? 0 : it->second.revision;
}

// 0: no number.
uint64_t AttemptOf(const std::string& text) {
  uint64_t attempt = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), attempt);
  return error == std::errc() && end == text.data() + text.size() ? attempt : 0;
}

bool IsMilestone(const RolloutState& before, const RolloutState& after) {
  return before.bps != after.bps || after.phase == Phase::kComplete || after.phase == Phase::kRolledBack;
}

}  // namespace

Rollouts::Rollouts(Parts parts) : parts_(std::move(parts)), window_clock_(parts_.clock) {
  subscription_ = parts_.store.Watch(kRoot, [this](const auto& changes) { Follow(changes); });
}

Rollouts::~Rollouts() { subscription_.reset(); }

void Rollouts::Follow(const absl::StatusOr<state::Changes>& changes) {
  {
    MutexLock lock(mu_);
    if (!changes.ok()) {
      if (store_error_.empty()) lost_since_ = parts_.clock.Now();
      store_error_ = std::string(changes.status().message());
    } else {
      store_error_.clear();
      for (const state::Entry& entry : changes->put) mirror_[entry.key] = entry;
      for (const std::string& key : changes->deleted) mirror_.erase(key);
    }
  }
  if (parts_.wake) parts_.wake();
}

Duration Rollouts::LostFor() const {
  MutexLock lock(mu_);
  return store_error_.empty() ? Duration::zero() : parts_.clock.Now() - lost_since_;
}

void Rollouts::Configure(std::vector<RolloutSpec> specs, Duration window) {
  std::map<std::string, std::unique_ptr<OfFlag>> next;
  if (window != window_) index_ = 0;
  window_ = window;
  for (RolloutSpec& spec : specs) {
    const std::string flag = spec.flag;
    const auto known = flags_.find(flag);
    if (known != flags_.end() && known->second->replica.spec().analysis == spec.analysis) {
      known->second->replica.SetSpec(std::move(spec));
      next[flag] = std::move(known->second);
      continue;
    }
    // Another analysis begins its evidence anew; what was decided stays in the store.
    ArmRecorder* const recorder = parts_.recorder(flag);
    if (recorder == nullptr) {
      LogError("rollout ignored", {{"flag", flag}, {"error", "no request asks for this flag"}});
      continue;
    }
    next[flag] = std::make_unique<OfFlag>(std::move(spec), *recorder);
    if (known != flags_.end()) next[flag]->served = known->second->served;
  }
  for (const auto& [flag, of] : flags_) {
    if (!next.contains(flag) && parts_.serve) parts_.serve(flag, Serving());
  }
  flags_ = std::move(next);
  publish_now_ = true;
}

void Rollouts::Absorb(OfFlag& of, const Mirror& mirror) {
  const std::string& flag = of.replica.spec().flag;
  if (const auto it = mirror.find(StateKey(flag)); it != mirror.end()) {
    const auto state = DecodeRolloutState(it->second.value);
    if (state.ok()) {
      of.replica.Absorb(*state);
    } else {
      LogError("state ignored", {{"key", it->first}, {"error", std::string(state.status().message())}});
    }
  }
  const std::string trips = TripsOf(flag);
  for (auto it = mirror.lower_bound(trips); it != mirror.end() && it->first.starts_with(trips); ++it) {
    const uint64_t attempt = AttemptOf(it->first.substr(trips.size()));
    of.replica.Learn(attempt);
    if (of.own_trip_attempt == attempt) of.own_trip.reset();  // the store has it, from whomever
  }
  const RolloutState& state = of.replica.view().state();
  if (of.own_trip && of.own_trip_attempt < state.attempt) of.own_trip.reset();
  for (const Transition& transition : state.history) {
    if (transition.epoch > of.told_epoch && parts_.told) parts_.told(flag, transition);
  }
  of.told_epoch = std::max(of.told_epoch, state.epoch);
}

std::vector<ReplicaRecord> Rollouts::Records(const Mirror& mirror) {
  std::map<std::string, Decoded> known;
  std::vector<ReplicaRecord> records;
  for (auto it = mirror.lower_bound(std::string(kReplicas)); it != mirror.end(); ++it) {
    if (!it->first.starts_with(kReplicas)) break;
    Decoded& decoded = known[it->first];
    decoded = std::move(decoded_[it->first]);
    if (decoded.revision != it->second.revision) {
      decoded = {.revision = it->second.revision, .record = DecodeReplicaRecord(it->second.value)};
      if (!decoded.record.ok()) {
        LogError("state ignored", {{"key", it->first}, {"error", std::string(decoded.record.status().message())}});
      }
    }
    if (decoded.record.ok()) records.push_back(*decoded.record);
  }
  decoded_ = std::move(known);
  return records;
}

void Rollouts::CloseWindows(WallTime now) {
  const int64_t index = WindowIndex(now, window_);
  if (index_ == 0) index_ = index;
  if (index == index_) return;
  const double rss = parts_.rss_bytes ? parts_.rss_bytes() : 0;
  for (auto& [flag, of] : flags_) {
    of->replica.EndWindow(index_, window_, parts_.replica, of->served, of->mixed, rss);
    of->mixed = false;
  }
  index_ = index;
  publish_now_ = true;
}

void Rollouts::TripWhatMust(WallTime now) {
  for (auto& [flag, of] : flags_) {
    if (of->replica.view().bps() == 0) continue;
    std::string why = of->replica.ReasonToTrip();
    if (why.empty() && parts_.broken) why = parts_.broken(flag);
    if (why.empty()) continue;
    const uint64_t attempt = of->replica.view().state().attempt;
    LogWarning("rollout tripped", {{"flag", flag}, {"attempt", std::to_string(attempt), true}, {"why", why}});
    of->replica.Learn(attempt);
    of->own_trip = Trip{.replica = parts_.replica, .why = why, .when = now, .examples = of->replica.examples()};
    of->own_trip_attempt = attempt;
    of->own_trip_why = why;
  }
}

void Rollouts::Serve() {
  const Duration lost = LostFor();
  for (auto& [flag, of] : flags_) {
    const Serving serving = of->replica.ToServe(lost);
    if (serving == of->served) continue;
    of->mixed = of->mixed || serving.bps != of->served.bps || serving.rolled_back != of->served.rolled_back;
    of->served = serving;
    publish_now_ = true;
    if (parts_.serve) parts_.serve(flag, serving);
  }
}

void Rollouts::Publish(WallTime now) {
  for (auto& [flag, of] : flags_) {
    if (!of->own_trip) continue;
    const auto put = parts_.store.Put(TripKey(flag, of->own_trip_attempt), Encode(*of->own_trip), 0);
    if (put.ok() || put.status().code() == absl::StatusCode::kAborted) of->own_trip.reset();
  }
  if (!publish_now_) return;
  if (session_ == nullptr || session_->alive_until() <= parts_.clock.Now()) {
    session_.reset();
    auto begun = parts_.store.BeginSession(parts_.session_ttl);
    if (!begun.ok()) return;
    session_ = *std::move(begun);
  }
  ReplicaRecord record{.replica = parts_.replica, .now = now, .flags = {}};
  for (auto& [flag, of] : flags_) {
    ReplicaRecord::OfFlag& out = record.flags[flag];
    out.epoch = of->served.epoch;
    out.windows.assign(of->replica.windows().begin(), of->replica.windows().end());
    out.examples = of->replica.examples();
  }
  const std::string key = ReplicaKey(parts_.replica);
  const auto before = parts_.store.Get(key);
  if (!before.ok() && before.status().code() != absl::StatusCode::kNotFound) return;
  const auto put =
      parts_.store.Put(key, Encode(record), before.ok() ? before->revision : 0, {.session = session_.get()});
  publish_now_ = !put.ok();
}

absl::Status Rollouts::Keep(OfFlag& of, uint64_t revision, const RolloutState& next, const state::PutOptions& options) {
  const auto put = parts_.store.Put(StateKey(next.flag), Encode(next), revision, options);
  if (!put.ok()) return put.status();
  {
    MutexLock lock(mu_);
    mirror_[StateKey(next.flag)] = {.key = StateKey(next.flag), .value = Encode(next), .revision = *put, .session = ""};
  }
  of.replica.Absorb(next);
  return absl::OkStatus();
}

void Rollouts::KeepEvidence(OfFlag& of, const RolloutState& before, const RolloutState& next,
                            const std::vector<ReplicaRecord>& records) {
  if (!IsMilestone(before, next)) return;
  std::vector<std::string> examples;
  for (const ReplicaRecord& record : records) {
    const auto it = record.flags.find(next.flag);
    if (it == record.flags.end()) continue;
    examples.insert(examples.end(), it->second.examples.begin(), it->second.examples.end());
  }
  const Judgement judgement = of.leader.Judge();
  const std::string evidence = MakeEvidence({.spec = of.replica.spec(),
                                             .before = before,
                                             .after = next,
                                             .judgement = judgement,
                                             .seen = of.seen,
                                             .series = of.series,
                                             .examples = examples,
                                             .replica = parts_.replica});
  if (const auto put = parts_.store.Put(EvidenceKey(next.flag, next.epoch), evidence, 0); !put.ok()) {
    LogError("evidence not kept", {{"flag", next.flag}, {"error", std::string(put.status().message())}});
  }
  const auto kept = parts_.store.List(EvidencePrefix(next.flag));
  if (!kept.ok()) return;
  for (size_t i = 0; i + kKeptEvidence < kept->entries.size(); ++i) {
    (void)parts_.store.Delete(kept->entries[i].key, kept->entries[i].revision);  // the next time, if not now
  }
}

void Rollouts::LeadFlag(OfFlag& of, const std::vector<ReplicaRecord>& records, const state::Fence& fence,
                        WallTime now) {
  const std::string flag = of.replica.spec().flag;
  Mirror mirror;
  {
    MutexLock lock(mu_);
    mirror = mirror_;
  }
  Absorb(of, mirror);  // so that what is decided rests on the very revision that it replaces
  const state::PutOptions options{.fence = fence};
  if (!of.restored) {
    if (const auto it = mirror.find(AnalysisKey(flag)); it != mirror.end()) {
      if (const absl::Status restored = of.leader.Restore(it->second.value); !restored.ok()) {
        LogError("evidence begins anew", {{"flag", flag}, {"error", std::string(restored.message())}});
      }
    }
    of.restored = true;
  }
  const uint64_t attempt = of.replica.view().state().attempt;
  if (attempt == 0) return;
  if (of.leader.Weigh(records, of.replica.view().state(), window_, now)) {
    of.series.Add(now, of.replica.view().state().bps, of.leader.Judge());
    (void)parts_.store.Put(AnalysisKey(flag), of.leader.Encode(), RevisionOf(mirror, AnalysisKey(flag)), options);
  }
  for (int step = 0; step < kMostSteps; ++step) {
    const RolloutState before = of.replica.view().state();
    of.seen = of.leader.Observe(records, before);
    if (const auto trip = mirror.find(TripKey(flag, before.attempt)); trip != mirror.end()) {
      const auto known = DecodeTrip(trip->second.value);
      of.seen.trip = known.ok() ? fmt::format("replica {}: {}", known->replica, known->why) : "a replica tripped it";
    } else if (of.replica.view().tripped()) {
      of.seen.trip = fmt::format("replica {}: {}", parts_.replica, of.own_trip_why);
    }
    const auto next = Advance(of.replica.spec(), before, of.seen, now);
    if (!next) return;
    const absl::Status kept = Keep(of, RevisionOf(mirror, StateKey(flag)), *next, options);
    if (!kept.ok()) {
      LogWarning("rollout not moved", {{"flag", flag}, {"error", std::string(kept.message())}});
      return;
    }
    KeepEvidence(of, before, *next, records);
    if (next->attempt != before.attempt) of.series.Clear();
    MutexLock lock(mu_);
    mirror = mirror_;
  }
}

void Rollouts::Tick() {
  const WallTime now = window_clock_.Now();
  const auto mirror = [this] {
    MutexLock lock(mu_);
    return mirror_;
  };
  const auto absorb = [this](const Mirror& news) {
    for (auto& [flag, of] : flags_) Absorb(*of, news);
  };
  absorb(mirror());
  CloseWindows(now);
  TripWhatMust(now);
  Serve();  // before anything waits for the store
  parts_.election.Tick();
  Publish(now);
  const std::optional<state::Fence> fence = parts_.election.leader();
  if (fence && LostFor() == Duration::zero()) {
    const std::vector<ReplicaRecord> records = Records(mirror());
    for (auto& [flag, of] : flags_) LeadFlag(*of, records, *fence, now);
    absorb(mirror());
    Serve();
  } else {
    for (auto& [flag, of] : flags_) of->restored = false;  // another one may go on meanwhile
  }
  Summarize();
}

absl::StatusOr<RolloutState> Rollouts::Obey(const std::string& flag, Order order, const std::string& who,
                                            const std::string& why, std::optional<uint64_t> expected_epoch,
                                            bool force) {
  const auto it = flags_.find(flag);
  if (it == flags_.end()) {
    return MakeError(Reason::kRolloutNotFound, fmt::format("no rollout of '{}' is defined in the rollouts file", flag));
  }
  OfFlag& of = *it->second;
  const WallTime now = window_clock_.Now();
  const std::optional<state::Fence> fence = parts_.election.leader();
  if (order == Order::kPromote && !fence) {
    const std::string leader = parts_.election.leader_name();
    return MakeError(Reason::kNotLeader, leader.empty() ? "nobody leads the replicas now, so nothing can be raised"
                                                        : fmt::format("replica {} leads: promote there", leader));
  }
  uint64_t revision = 0;
  {
    MutexLock lock(mu_);
    Absorb(of, mirror_);
    revision = RevisionOf(mirror_, StateKey(flag));
  }
  RolloutState before = of.replica.view().state();
  before.flag = flag;
  SLUICE_ASSIGN_OR_RETURN(const RolloutState next,
                          rollout::Obey(of.replica.spec(), before, order, who, why, expected_epoch, force, now));
  if (order == Order::kRollback) {  // in force here, whatever the store says
    of.replica.Learn(before.attempt);
    of.own_trip = Trip{.replica = parts_.replica, .why = fmt::format("{}: {}", who, why), .when = now, .examples = {}};
    of.own_trip_attempt = before.attempt;
    of.own_trip_why = of.own_trip->why;
    Serve();
  }
  state::PutOptions options;
  if (order == Order::kPromote) options.fence = fence;
  if (const absl::Status kept = Keep(of, revision, next, options); !kept.ok()) {
    return MakeError(
        Reason::kStateNotKept,
        fmt::format("the state store did not keep it{}: {}",
                    order == Order::kRollback ? "; this replica serves 0 % all the same and tries again" : "",
                    std::string(kept.message())));
  }
  KeepEvidence(of, before, next, {});
  if (next.attempt != before.attempt) of.series.Clear();
  Serve();
  Summarize();
  return next;
}

void Rollouts::Summarize() {
  Report report{.replica = parts_.replica,
                .leader = parts_.election.leader_name(),
                .leads = parts_.election.leader().has_value(),
                .stale_for = LostFor()};
  for (const auto& [flag, of] : flags_) {
    report.rollouts.push_back({.spec = of->replica.spec(),
                               .state = of->replica.view().state(),
                               .serving = of->served,
                               .tripped = of->replica.view().tripped(),
                               .judgement = report.leads ? of->leader.Judge() : of->replica.analysis().Judge(),
                               .seen = of->seen});
    report.rollouts.back().state.flag = flag;
  }
  MutexLock lock(mu_);
  report.store_error = store_error_;
  for (auto it = mirror_.lower_bound(std::string(kReplicas)); it != mirror_.end(); ++it) {
    if (!it->first.starts_with(kReplicas)) break;
    report.replicas.push_back(it->first.substr(kReplicas.size()));
  }
  report_ = std::move(report);
}

Report Rollouts::Describe() const {
  MutexLock lock(mu_);
  return report_;
}

absl::StatusOr<std::vector<std::string>> Rollouts::EvidenceOf(const std::string& flag) const {
  SLUICE_ASSIGN_OR_RETURN(const state::Listing listing, parts_.store.List(EvidencePrefix(flag)));
  std::vector<std::string> evidence;
  for (auto it = listing.entries.rbegin(); it != listing.entries.rend(); ++it) evidence.push_back(it->value);
  return evidence;
}

}  // namespace sluice::rollout
