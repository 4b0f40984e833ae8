#include "services/rollout_control.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "engine/pipelines/pipelines.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::services {
namespace {

using rollout::Phase;
using rollout::Verdict;

constexpr size_t kMaxWaiting = 64;
constexpr Duration kTick = std::chrono::milliseconds(100);
constexpr Duration kBrokenAfter = std::chrono::seconds(10);
constexpr double kPercent = 100;
constexpr std::string_view kNoStore =
    "rollouts need a state store, where they stand over restarts: set state_folder, or state.store, in the settings";

double VerdictNumber(Verdict verdict) { return verdict == Verdict::kPass ? 1 : verdict == Verdict::kFail ? -1 : 0; }

std::optional<size_t> IndexOf(std::string_view flag) {
  const auto at = std::find(kRolloutFlags.begin(), kRolloutFlags.end(), flag);
  if (at == kRolloutFlags.end()) return std::nullopt;
  return static_cast<size_t>(at - kRolloutFlags.begin());
}

// Attempts of another store may have had the same name.
WallTime BegunAt(const rollout::RolloutState& state) {
  const auto begun = std::find_if(state.history.rbegin(), state.history.rend(),
                                  [](const rollout::Transition& t) { return t.to == Phase::kPending; });
  return begun == state.history.rend() ? WallTime() : begun->when;
}

}  // namespace

RolloutControl::RolloutControl(Parts parts)
    : parts_(std::move(parts)),
      percentage_(parts_.metrics.AddGauge("sluice_rollout_percentage", "Served by this replica, 0 to 100", {"flag"})),
      stage_(parts_.metrics.AddGauge("sluice_rollout_stage", "Index of the stage, from 0", {"flag"})),
      phase_(parts_.metrics.AddGauge("sluice_rollout_phase", "1 for the present phase, else 0", {"flag", "phase"})),
      verdict_(parts_.metrics.AddGauge("sluice_rollout_verdict", "1 pass, 0 inconclusive, -1 fail", {"flag"})),
      e_value_(
          parts_.metrics.AddGauge("sluice_rollout_e_value", "Evidence that the canary is worse", {"flag", "check"})),
      transitions_(parts_.metrics.AddCounter("sluice_rollout_transitions_total", "Moves of rollouts", {"flag", "to"})),
      reloads_(parts_.metrics.AddCounter("sluice_rollout_reloads_total", "Readings of the rollouts file", {"result"})),
      leader_(parts_.metrics.AddGauge("sluice_rollout_leader", "1 while this replica may raise percentages").With({})),
      stale_(
          parts_.metrics.AddGauge("sluice_rollout_store_stale", "1 while the state store is out of reach").With({})) {
  if (parts_.store == nullptr) return;
  const auto wake = [this] {
    MutexLock lock(mu_);
    ++news_;
    wake_.SignalAll();
  };
  election_ = std::make_unique<state::Election>(
      *parts_.store,
      state::Election::Options{
          .key = "rollouts/leader", .name = parts_.replica, .session_ttl = parts_.session_ttl, .wake = wake},
      parts_.clock);
  rollouts_ = std::make_unique<rollout::Rollouts>(rollout::Rollouts::Parts{
      .store = *parts_.store,
      .election = *election_,
      .clock = parts_.clock,
      .replica = parts_.replica,
      .session_ttl = parts_.session_ttl,
      .recorder =
          [this](std::string_view flag) {
            const auto index = IndexOf(flag);
            return index ? &parts_.arms.recorder(*index) : nullptr;
          },
      .serve = [this](const std::string& flag, const rollout::Serving& serving) { Serve(flag, serving); },
      .broken = [this](const std::string& flag) { return Broken(flag); },
      .rss_bytes = parts_.rss_bytes,
      .told = [this](const std::string& flag, const rollout::Transition& t) { Tell(flag, t); },
      .wake = wake});
  guard_ = std::thread([this] { Guard(); });
  thread_ = std::thread([this] { Run(); });
}

RolloutControl::~RolloutControl() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.SignalAll();
  if (thread_.joinable()) thread_.join();
  if (guard_.joinable()) guard_.join();
}

void RolloutControl::Guard() {
  const ScopedThreadName name("rollout guard");
  MutexLock lock(mu_);
  while (!stopping_) {
    const uint64_t heard = news_;
    mu_.Unlock();
    rollouts_->Guard();
    ReportCrash();
    SetMetrics();
    mu_.Lock();
    if (!stopping_ && news_ == heard) wake_.WaitFor(mu_, kTick);
  }
}

void RolloutControl::Run() {
  const ScopedThreadName name("rollouts");
  MutexLock lock(mu_);
  while (!stopping_ || !queue_.empty()) {
    std::deque<std::function<void()>> work;
    work.swap(queue_);
    const uint64_t heard = news_;
    mu_.Unlock();
    for (const auto& one : work) one();
    rollouts_->Tick();
    mu_.Lock();
    if (!stopping_ && news_ == heard && queue_.empty()) wake_.WaitFor(mu_, kTick);
  }
}

void RolloutControl::Enqueue(std::function<void()> work, const std::function<void(const absl::Status&)>& refuse) {
  absl::Status refused;
  {
    MutexLock lock(mu_);
    if (rollouts_ == nullptr) {
      refused = MakeError(Reason::kRolloutNotFound, std::string(kNoStore));
    } else if (stopping_) {
      refused = MakeError(Reason::kDraining, "the server stops");
    } else if (queue_.size() >= kMaxWaiting) {
      refused = MakeError(Reason::kTooManyChanges, fmt::format("{} orders wait already", kMaxWaiting),
                          {.retry_after = std::chrono::seconds(1)});
    } else {
      queue_.push_back(std::move(work));
      wake_.SignalAll();
    }
  }
  if (!refused.ok()) refuse(refused);
}

absl::Status RolloutControl::Reload(absl::StatusOr<config::RolloutFile> file, const std::string& cause) {
  absl::Status status = file.status();
  reloads_.With({status.ok() ? "ok" : "failed"}).Add();
  if (!status.ok()) {
    LogError("rollouts kept as they were", {{"cause", cause}, {"error", std::string(status.message())}});
    return status;
  }
  LogInfo("rollouts", {{"cause", cause}, {"count", std::to_string(file->rollouts.size()), true}});
  if (rollouts_ == nullptr) {
    if (!file->rollouts.empty()) LogWarning("no rollout can be started", {{"why", std::string(kNoStore)}});
    return absl::OkStatus();
  }
  Enqueue(
      [this, file = *std::move(file)] {
        alerts_.clear();
        for (const rollout::RolloutSpec& spec : file.rollouts) alerts_[spec.flag] = spec.alerts;
        rollouts_->Configure(file.rollouts, file.window);
      },
      [&status](const absl::Status& refused) { status = refused; });
  return status;
}

void RolloutControl::Obey(Order order, Done done) {
  Enqueue(
      [this, order = std::move(order), done] {
        done(rollouts_->Obey(order.flag, order.order, order.actor.who, order.actor.why, order.expected_epoch,
                             order.force));
      },
      done);
}

void RolloutControl::Evidence(std::string flag, EvidenceDone done) {
  Enqueue([this, flag = std::move(flag), done] { done(rollouts_->EvidenceOf(flag)); }, done);
}

rollout::Report RolloutControl::Describe() const {
  return rollouts_ == nullptr ? rollout::Report{.replica = parts_.replica} : rollouts_->Describe();
}

void RolloutControl::Serve(const std::string& flag, const rollout::Serving& serving) {
  const std::optional<size_t> index = IndexOf(flag);
  if (index) parts_.arms.Watch(*index, serving.begun && !serving.rolled_back);
  if (flag == flags::kTtftPipeline && serving.bps > 0 && serving.by != ttft_by_) {
    // What opened a breaker was judged with the attempt before: this one would trip on it unseen.
    ttft_by_ = serving.by;
    for (const qos::BreakerRegistry::Entry& entry : parts_.breakers.List()) {
      if (entry.pipeline == engine::kTtftPipeline && entry.snapshot.state == qos::BreakerState::kOpen) {
        parts_.breakers.Force(entry.model, entry.pipeline, qos::BreakerState::kClosed,
                              {.who = serving.by, .why = "a new attempt begins"});
      }
    }
  }
  if (parts_.journal != nullptr && serving.begun) {
    parts_.journal->SetAttempt(serving.bps > 0 ? serving.by.substr(serving.by.find(' ') + 1) : "");
  }
  const auto set = [&](flags::Layer layer, bool on, flags::RolloutBps bps) {
    flags::FlagValues values;
    if (on) values = {.rollout_bps = bps, .rollout_by = serving.by};
    if (const absl::Status status = parts_.flags.SetValues(layer, flag, values, serving.by); !status.ok()) {
      LogError("rollout not in force", {{"flag", flag}, {"error", std::string(status.message())}});
    }
  };
  set(flags::Layer::kRollback, serving.rolled_back, 0);  // first: lowering is never late
  set(flags::Layer::kRolloutStage, serving.begun, serving.bps);
}

void RolloutControl::Tell(const std::string& flag, const rollout::Transition& transition) {
  const std::string to(rollout::PhaseName(transition.to));
  const std::string percent = fmt::format("{:g}", transition.bps / kPercent);
  const std::vector<LogField> fields = {{"flag", flag},
                                        {"from", std::string(rollout::PhaseName(transition.from))},
                                        {"to", to},
                                        {"percent", percent, true},
                                        {"epoch", std::to_string(transition.epoch), true},
                                        {"cause", transition.cause}};
  if (transition.to == Phase::kRolledBack) {
    LogWarning("rollout", fields);
  } else {
    LogInfo("rollout", fields);
  }
  transitions_.With({flag, to}).Add();
  for (const std::string& webhook : alerts_[flag]) {
    parts_.webhooks.Post(webhook,
                         {.policy = "rollout:" + flag,
                          .metric = fmt::format("epoch {}", transition.epoch),
                          .state = to,
                          .severity = transition.to == Phase::kRolledBack ? "critical" : "info",
                          .value = transition.bps / kPercent,
                          .message = fmt::format("{} is {} at {} %: {}", flag, to, percent, transition.cause)});
  }
}

std::string RolloutControl::Broken(const std::string& flag) {
  for (const rollout::RolloutReport& of : Describe().rollouts) {
    if (of.state.flag == flag && of.state.attempt_id() == crashing_attempt_) return crashing_why_;
  }
  if (flag != flags::kTtftPipeline) return "";
  for (const qos::BreakerRegistry::Entry& entry : parts_.breakers.List()) {
    const bool open =
        entry.snapshot.state == qos::BreakerState::kOpen || entry.snapshot.state == qos::BreakerState::kForcedOpen;
    if (entry.pipeline == engine::kTtftPipeline && open && entry.snapshot.in_state >= kBrokenAfter) {
      return fmt::format("the ttft circuit breaker of model {} is open for {:.0f} s", entry.model,
                         ToSeconds(entry.snapshot.in_state));
    }
  }
  return "";
}

// Once the rollout knows its attempt again: what the process before this one left in flight.
void RolloutControl::ReportCrash() {
  if (crash_reported_ || parts_.journal == nullptr) return;
  const rollout::CrashJournal::Crash& crash = parts_.journal->previous();
  crash_reported_ = crash.orderly || crash.attempt.empty();
  if (crash_reported_) return;
  for (const rollout::RolloutReport& of : Describe().rollouts) {
    const std::optional<size_t> index = IndexOf(of.state.flag);
    if (of.state.attempt == 0 || !index) continue;
    if (of.state.attempt_id() == crash.attempt) {
      if (crash.before && *crash.before >= BegunAt(of.state) &&
          crash.noticed - *crash.before <= of.spec.analysis.crash_span) {
        crashing_attempt_ = crash.attempt;
        crashing_why_ = fmt::format(
            "crash_rate: two crashes of this replica within {:.0f} s, with requests of the canary in flight",
            ToSeconds(crash.noticed - *crash.before));
      }
      LogWarning("crash during a rollout", {{"attempt", crash.attempt},
                                            {"canary", std::to_string(crash.in_flight[1]), true},
                                            {"baseline", std::to_string(crash.in_flight[0]), true}});
      for (size_t arm = 0; arm < rollout::kArms; ++arm) {
        parts_.arms.recorder(*index).Crashed(static_cast<rollout::Arm>(arm), crash.in_flight[arm]);
      }
      crash_reported_ = true;
    }
  }
}

void RolloutControl::SetMetrics() {
  const rollout::Report report = Describe();
  leader_.Set(report.leads ? 1 : 0);
  stale_.Set(report.store_error.empty() ? 0 : 1);
  for (const rollout::RolloutReport& of : report.rollouts) {
    const std::string& flag = of.state.flag;
    percentage_.With({flag}).Set(of.serving.bps / kPercent);
    stage_.With({flag}).Set(static_cast<double>(of.state.stage));
    verdict_.With({flag}).Set(of.tripped ? -1 : VerdictNumber(of.judgement.verdict));
    for (int phase = 0; phase < rollout::kPhases; ++phase) {
      const auto p = static_cast<Phase>(phase);
      phase_.With({flag, std::string(rollout::PhaseName(p))}).Set(p == of.state.phase ? 1 : 0);
    }
    for (const rollout::Check& check : of.judgement.checks) e_value_.With({flag, check.name}).Set(check.e_value);
  }
}

std::optional<std::string> RolloutAnalysisJson(const rollout::Report& report, std::string_view flag) {
  for (const rollout::RolloutReport& of : report.rollouts) {
    if (of.state.flag != flag) continue;
    const bool back = of.tripped || of.state.phase == Phase::kRolledBack;
    const bool doubtful = !of.seen.hold.empty() || !report.store_error.empty();
    const Verdict verdict = back ? Verdict::kFail : doubtful ? Verdict::kInconclusive : of.judgement.verdict;
    return nlohmann::json({{"data",
                            {{"flag", flag},
                             {"verdict", rollout::VerdictName(verdict)},
                             {"ok", verdict == Verdict::kPass},
                             {"cause", back       ? of.state.cause
                                       : doubtful ? of.seen.hold
                                                  : of.judgement.cause},
                             {"phase", rollout::PhaseName(of.state.phase)},
                             {"percent", of.serving.bps / kPercent},
                             {"stage", of.state.stage},
                             {"epoch", of.state.epoch}}}})
        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  return std::nullopt;
}

}  // namespace sluice::services
