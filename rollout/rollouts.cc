#include "rollout/rollouts.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::rollout {
namespace {

constexpr int kMostSteps = 8;  // of one Tick and rollout

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

// A store that hangs says nothing: neither the watch nor a call fails for a while. The session is what ends then.
Duration Rollouts::LostFor() const {
  const MonoTime now = parts_.clock.Now();
  MutexLock lock(mu_);
  MonoTime since = kInfiniteFuture;
  if (!store_error_.empty()) since = lost_since_;
  if (silent_since_) since = std::min(since, *silent_since_);
  if (session_ != nullptr) since = std::min(since, session_->alive_until());
  return since <= now ? std::max(Duration(1), now - since) : Duration::zero();
}

void Rollouts::NoteAnswer(const absl::Status& status, MonoTime asked) {
  MutexLock lock(mu_);
  if (status.code() != absl::StatusCode::kUnavailable) {
    silent_since_.reset();
  } else if (!silent_since_) {
    silent_since_ = asked;
  }
}

std::vector<Rollouts::OfFlag*> Rollouts::Flags() {
  MutexLock lock(local_);
  std::vector<OfFlag*> all;
  for (const auto& [flag, of] : flags_) all.push_back(of.get());
  return all;
}

std::optional<state::Entry> Rollouts::Find(const std::string& key) const {
  MutexLock lock(mu_);
  const auto it = mirror_.find(key);
  return it == mirror_.end() ? std::nullopt : std::optional(it->second);
}

RolloutState Rollouts::StateOf(const OfFlag& of) const {
  MutexLock lock(local_);
  return of.replica.view().state();
}

void Rollouts::Configure(std::vector<RolloutSpec> specs, Duration window) {
  std::map<std::string, std::unique_ptr<OfFlag>> next;
  MutexLock lock(local_);
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
  AbsorbAll();
  for (const auto& [flag, of] : flags_) {
    if (!of->told_epoch && LostFor() == Duration::zero()) of->told_epoch = of->replica.view().state().epoch;
  }
  Summarize();
}

void Rollouts::Absorb(OfFlag& of) {
  const std::string& flag = of.replica.spec().flag;
  const std::string trips = TripPrefix(flag);
  MutexLock lock(mu_);
  if (const auto it = mirror_.find(StateKey(flag)); it != mirror_.end() && it->second.revision != of.revision) {
    of.revision = it->second.revision;
    const auto state = DecodeRolloutState(it->second.value);
    if (state.ok()) {
      of.replica.Absorb(*state);
    } else {
      LogError("state ignored", {{"key", it->first}, {"error", std::string(state.status().message())}});
    }
  }
  for (auto it = mirror_.lower_bound(trips); it != mirror_.end() && it->first.starts_with(trips); ++it) {
    const auto attempt = AttemptOfTrip(it->first, flag);
    if (!attempt) continue;
    of.replica.Learn(*attempt);
    if (of.own_trip_attempt == *attempt) of.own_trip.reset();  // the store has it, from whomever
  }
  if (of.own_trip && of.own_trip_attempt < of.replica.view().state().attempt) of.own_trip.reset();
}

void Rollouts::AbsorbAll() {
  for (auto& [flag, of] : flags_) Absorb(*of);
}

void Rollouts::Tell(OfFlag& of) {
  const RolloutState state = StateOf(of);
  const uint64_t told = of.told_epoch.value_or(state.epoch);
  for (const Transition& transition : state.history) {
    if (transition.epoch > told && parts_.told) parts_.told(of.replica.spec().flag, transition);
  }
  if (of.told_epoch || LostFor() == Duration::zero()) of.told_epoch = std::max(told, state.epoch);
}

std::vector<ReplicaRecord> Rollouts::Records() {
  std::vector<state::Entry> news;
  {
    MutexLock lock(mu_);
    std::erase_if(decoded_, [this](const auto& known)
                                ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !mirror_.contains(known.first); });
    for (auto it = mirror_.lower_bound(std::string(kReplicas)); it != mirror_.end(); ++it) {
      if (!it->first.starts_with(kReplicas)) break;
      if (decoded_[it->first].revision != it->second.revision) news.push_back(it->second);
    }
  }
  for (const state::Entry& entry : news) {
    Decoded& decoded = decoded_[entry.key];
    decoded = {.revision = entry.revision, .record = DecodeReplicaRecord(entry.value)};
    if (!decoded.record.ok()) {
      LogError("state ignored", {{"key", entry.key}, {"error", std::string(decoded.record.status().message())}});
    }
  }
  std::vector<ReplicaRecord> records;
  for (const auto& [key, decoded] : decoded_) {
    if (decoded.record.ok()) records.push_back(*decoded.record);
  }
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

void Rollouts::PublishTrips() {
  for (OfFlag* const of : Flags()) {
    std::optional<Trip> trip;
    std::string key;
    {
      MutexLock lock(local_);
      if (!of->own_trip) continue;
      trip = of->own_trip;
      key = TripKey(of->replica.spec().flag, of->own_trip_attempt);
    }
    const MonoTime asked = parts_.clock.Now();
    const absl::Status put = parts_.store.Put(key, Encode(*trip), 0).status();
    NoteAnswer(put, asked);
    if (!put.ok() && put.code() != absl::StatusCode::kAborted) continue;
    MutexLock lock(local_);
    if (key == TripKey(of->replica.spec().flag, of->own_trip_attempt)) of->own_trip.reset();
  }
}

absl::Status Rollouts::Publish() {
  std::shared_ptr<state::Session> session;
  {
    MutexLock lock(mu_);
    session = session_;
  }
  if (session == nullptr || session->alive_until() <= parts_.clock.Now()) {
    SLUICE_ASSIGN_OR_RETURN(session, parts_.store.BeginSession(parts_.session_ttl));
    std::shared_ptr<state::Session> ended = session;  // its end may wait for the store
    MutexLock lock(mu_);
    session_.swap(ended);
  }
  ReplicaRecord record{.replica = parts_.replica, .now = {}, .flags = {}};
  {
    MutexLock lock(local_);
    publish_now_ = false;
    record.now = window_clock_.Now();
    for (auto& [flag, of] : flags_) {
      ReplicaRecord::OfFlag& out = record.flags[flag];
      out.epoch = of->served.epoch;
      out.windows.assign(of->replica.windows().begin(), of->replica.windows().end());
      out.examples = of->replica.examples();
    }
  }
  const std::string key = ReplicaKey(parts_.replica);
  const auto before = parts_.store.Get(key);
  if (!before.ok() && before.status().code() != absl::StatusCode::kNotFound) return before.status();
  return parts_.store.Put(key, Encode(record), before.ok() ? before->revision : 0, {.session = session.get()}).status();
}

absl::Status Rollouts::Keep(OfFlag& of, uint64_t revision, const RolloutState& next, const state::PutOptions& options) {
  state::Entry entry{.key = StateKey(next.flag), .value = Encode(next), .revision = 0, .session = ""};
  SLUICE_ASSIGN_OR_RETURN(entry.revision, parts_.store.Put(entry.key, entry.value, revision, options));
  MutexLock lock(local_);
  of.revision = entry.revision;
  of.replica.Absorb(next);
  MutexLock lock_mirror(mu_);
  mirror_[entry.key] = entry;
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
  ForgetOld(parts_.store, next);
}

Observation Rollouts::Observe(const OfFlag& of, const std::vector<ReplicaRecord>& records,
                              const RolloutState& state) const {
  Observation seen = of.leader.Observe(records, state);
  if (const auto trip = Find(TripKey(of.replica.spec().flag, state.attempt))) {
    const auto known = DecodeTrip(trip->value);
    seen.trip = known.ok() ? fmt::format("replica {}: {}", known->replica, known->why) : "a replica tripped it";
    return seen;
  }
  MutexLock lock(local_);
  if (of.replica.view().tripped()) seen.trip = fmt::format("replica {}: {}", parts_.replica, of.own_trip_why);
  return seen;
}

void Rollouts::Weigh(OfFlag& of, const Round& round) {
  const std::string key = AnalysisKey(of.replica.spec().flag);
  const auto kept = Find(key);
  if (!of.restored && kept) {
    if (const absl::Status restored = of.leader.Restore(kept->value); !restored.ok()) {
      LogError("evidence begins anew", {{"key", key}, {"error", std::string(restored.message())}});
    }
  }
  of.restored = true;
  const RolloutState state = StateOf(of);
  if (state.attempt == 0 || !of.leader.Weigh(round.records, state, round.window, round.now)) return;
  of.series.Add(round.now, state.bps, of.leader.Judge());
  (void)parts_.store.Put(key, of.leader.Encode(), kept ? kept->revision : 0, {.fence = round.fence});  // or next time
}

void Rollouts::LeadFlag(OfFlag& of, const Round& round) {
  Weigh(of, round);
  for (int step = 0; step < kMostSteps; ++step) {
    RolloutState before;
    uint64_t revision = 0;  // what is decided rests on the very revision that it replaces
    {
      MutexLock lock(local_);
      Absorb(of);
      before = of.replica.view().state();
      revision = of.revision;
    }
    if (before.attempt == 0) return;
    const Observation seen = Observe(of, round.records, before);
    {
      MutexLock lock(local_);
      of.seen = seen;
      of.judged = of.leader.Judge();
    }
    const auto next = Advance(of.replica.spec(), before, seen, round.now);
    if (!next) return;
    const absl::Status kept = Keep(of, revision, *next, {.fence = round.fence});
    if (!kept.ok()) {
      LogWarning("rollout not moved", {{"flag", next->flag}, {"error", std::string(kept.message())}});
      return;
    }
    KeepEvidence(of, before, *next, round.records);
    if (next->attempt != before.attempt) of.series.Clear();
  }
}

void Rollouts::Guard() {
  MutexLock lock(local_);
  const WallTime now = window_clock_.Now();
  AbsorbAll();
  CloseWindows(now);
  TripWhatMust(now);
  Serve();
  Summarize();
}

void Rollouts::Tick() {
  Guard();
  parts_.election.Tick();
  PublishTrips();
  const auto due = [this] {
    MutexLock lock(local_);
    return publish_now_;
  };
  if (due() || LostFor() > Duration::zero()) {
    const MonoTime asked = parts_.clock.Now();
    const absl::Status published = Publish();
    NoteAnswer(published, asked);
    MutexLock lock(local_);
    publish_now_ = publish_now_ || !published.ok();
  }
  const std::optional<state::Fence> fence = parts_.election.leader();
  if (fence && LostFor() == Duration::zero()) {
    Round round{.records = Records(), .fence = *fence, .window = {}, .now = {}};
    {
      MutexLock lock(local_);
      round.window = window_;
      round.now = window_clock_.Now();
    }
    for (OfFlag* const of : Flags()) LeadFlag(*of, round);
  } else {
    for (OfFlag* const of : Flags()) of->restored = false;  // another one may go on meanwhile
  }
  for (OfFlag* const of : Flags()) Tell(*of);
  MutexLock lock(local_);
  AbsorbAll();
  Serve();
  Summarize();
}

absl::StatusOr<RolloutState> Rollouts::Obey(const std::string& flag, Order order, const std::string& who,
                                            const std::string& why, std::optional<uint64_t> expected_epoch,
                                            bool force) {
  const std::optional<state::Fence> fence = parts_.election.leader();
  OfFlag* of = nullptr;
  uint64_t revision = 0;
  RolloutState before, next;
  {
    MutexLock lock(local_);
    const auto it = flags_.find(flag);
    if (it == flags_.end()) {
      return MakeError(Reason::kRolloutNotFound,
                       fmt::format("no rollout of '{}' is defined in the rollouts file", flag));
    }
    of = it->second.get();
    const WallTime now = window_clock_.Now();
    Absorb(*of);
    revision = of->revision;
    before = of->replica.view().state();
    before.flag = flag;
    SLUICE_ASSIGN_OR_RETURN(next,
                            rollout::Obey(of->replica.spec(), before, order, who, why, expected_epoch, force, now));
    if (order == Order::kPromote && !fence) {
      const std::string leader = parts_.election.leader_name();
      return MakeError(Reason::kNotLeader, leader.empty() ? "nobody leads the replicas now, so nothing can be raised"
                                                          : fmt::format("replica {} leads: promote there", leader));
    }
    if (order == Order::kRollback) {  // in force here, whatever the store says
      of->replica.Learn(before.attempt);
      of->own_trip =
          Trip{.replica = parts_.replica, .why = fmt::format("{}: {}", who, why), .when = now, .examples = {}};
      of->own_trip_attempt = before.attempt;
      of->own_trip_why = of->own_trip->why;
      Serve();
    }
  }
  state::PutOptions options;
  if (order == Order::kPromote) options.fence = fence;
  if (const absl::Status kept = Keep(*of, revision, next, options); !kept.ok()) {
    return MakeError(
        Reason::kStateNotKept,
        fmt::format("the state store did not keep it{}: {}",
                    order == Order::kRollback ? "; this replica serves 0 % all the same and tries again" : "",
                    std::string(kept.message())));
  }
  KeepEvidence(*of, before, next, {});
  if (next.attempt != before.attempt) of->series.Clear();
  MutexLock lock(local_);
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
                               .judgement = report.leads ? of->judged : of->replica.analysis().Judge(),
                               .seen = of->seen});
    report.rollouts.back().state.flag = flag;
  }
  MutexLock lock(mu_);
  report.store_error = store_error_;
  if (report.store_error.empty() && report.stale_for > Duration::zero()) {
    report.store_error = "the state store does not answer";
  }
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
