#include "qos/policy_engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "base/published.h"
#include "qos/policy_effects.h"
#include "qos/policy_ladder.h"
#include "qos/policy_objective.h"
#include "qos/policy_scope.h"

namespace sluice::qos {
namespace {

constexpr size_t kShards = 8, kShardOutcomes = 1024;
constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

// The shard of the calling thread.
size_t OwnShard() {
  static std::atomic<size_t> threads{0};  // atomic: counted by each thread once
  thread_local const size_t own = threads.fetch_add(1) % kShards;
  return own;
}

struct EngineMetrics {
  explicit EngineMetrics(MetricsRegistry& metrics)
      : step(metrics.AddGauge("sluice_qos_policy_step", "Steps of its ladder that a policy stands on",
                              {"policy", "mode"}, 3 * PolicySet::kMaxPolicies)),
        violated(metrics.AddGauge("sluice_qos_objective_violated", "1: the objective is missed; absent: not known",
                                  {"policy", "metric"}, 2 * PolicySet::kMaxObjectives)),
        value(metrics.AddGauge("sluice_qos_objective_value", "What the objective looks at, in the metric's unit",
                               {"policy", "metric"}, 2 * PolicySet::kMaxObjectives)),
        actions(metrics.AddCounter("sluice_qos_actions_total", "Actions of policies",
                                   {"policy", "action", "mode", "outcome"}, 8 * PolicySet::kMaxPolicies)),
        dropped(metrics.AddCounter("sluice_qos_outcomes_dropped_total", "Outcomes that no policy has seen").With({})) {}

  Family<Gauge>&step, &violated, &value;
  Family<Counter>& actions;
  Counter& dropped;
};

// One policy at work. Not thread-safe.
class PolicyAtWork {
 public:
  PolicyAtWork(const Policy& policy, MonoTime now, EngineMetrics& metrics)
      : policy_(&policy), metrics_(metrics), verdicts_(policy.objectives.size(), Verdict::kUnknown) {
    for (const Objective& objective : policy.objectives) windows_.emplace_back(objective.window, now);
    readings_.resize(policy.objectives.size());
    ladder_.since = ladder_.verdict_since = now;
    Show();
  }

  const Policy& policy() const { return *policy_; }
  void Follow(const Policy& same) { policy_ = &same; }  // the same policy in a newer set
  int step() const { return ladder_.step; }

  void Record(const OutcomeNumbers& numbers, MonoTime ended) {
    for (size_t i = 0; i < windows_.size(); ++i) {
      if (KindOf(policy_->objectives[i].signal) == SignalKind::kLevel) continue;
      if (Tally* slice = windows_[i].At(ended)) AddTo(policy_->objectives[i], numbers, slice);
    }
  }

  void Evaluate(const SystemState& state, MonoTime now, std::vector<ActionOrder>* orders) {
    if (policy_->mode == PolicyMode::kOff) return;
    const bool someone_waits = state.queued != 0;  // nor is that known: a minimum is judged
    for (size_t i = 0; i < windows_.size(); ++i) {
      const Objective& objective = policy_->objectives[i];
      readings_[i] = ReadObjective(objective, windows_[i], state, now);
      verdicts_[i] = JudgeObjective(objective, readings_[i], policy_->recovery_margin, someone_waits);
    }
    const Verdict together = Together(verdicts_);
    if (together == Verdict::kViolated) cause_ = WorstObjective();
    const LadderDecision decision = Advance(*policy_, together, now, &ladder_);
    CountHold(decision.hold, together);
    Act(decision, orders);
    Show();
  }

  // Orders that end whatever stands; the series of this policy disappear.
  void End(std::vector<ActionOrder>* orders) {
    for (int i = ladder_.step; i-- > 0;) {
      const Action& action = policy_->ladder[static_cast<size_t>(i)];
      ladder_.step = i;
      if (!IsOnce(action.kind)) Order(action, /*begins=*/false, orders);
    }
    StepGauge().Set(kNotKnown);
    for (const Objective& objective : policy_->objectives) {
      metrics_.violated.With({policy_->id, objective.metric}).Set(kNotKnown);
      metrics_.value.With({policy_->id, objective.metric}).Set(kNotKnown);
    }
  }

  PolicyStatus Status(MonoTime now) const {
    PolicyStatus out{.id = policy_->id, .mode = policy_->mode, .step = ladder_.step};
    out.held_by = HoldName(hold_);
    out.since = now - ladder_.since;
    out.actions = actions_;
    for (size_t i = 0; i < readings_.size(); ++i) {
      const Objective& objective = policy_->objectives[i];
      out.objectives.push_back({.metric = objective.metric,
                                .severity = objective.severity,
                                .state = StateOf(verdicts_[i]),
                                .value = readings_[i].value.value_or(0),
                                .threshold = objective.threshold,
                                .samples = readings_[i].samples});
    }
    return out;
  }

 private:
  static ObjectiveState StateOf(Verdict verdict) {
    if (verdict == Verdict::kUnknown) return ObjectiveState::kUnknown;
    return verdict == Verdict::kViolated ? ObjectiveState::kViolated : ObjectiveState::kMet;
  }

  // The violated one of the highest severity. Requires: one is violated.
  size_t WorstObjective() const {
    size_t worst = verdicts_.size();
    for (size_t i = 0; i < verdicts_.size(); ++i) {
      if (verdicts_[i] != Verdict::kViolated) continue;
      if (worst == verdicts_.size() || policy_->objectives[i].severity > policy_->objectives[worst].severity) worst = i;
    }
    return worst;
  }

  void Count(const Action& action, std::string_view outcome) {
    metrics_.actions
        .With({policy_->id, std::string(ActionName(action.kind)), std::string(PolicyModeName(policy_->mode)),
               std::string(outcome)})
        .Add();
  }

  void CountHold(Hold hold, Verdict verdict) {
    const bool held = hold == Hold::kCap || hold == Hold::kLoop;
    if (held && hold != hold_) {
      const auto last = static_cast<int>(policy_->ladder.size()) - 1;
      const int next = verdict == Verdict::kViolated ? std::min(ladder_.step, last) : ladder_.step - 1;
      Count(policy_->ladder[static_cast<size_t>(next)], HoldName(hold));
    }
    hold_ = hold;
  }

  void Order(const Action& action, bool begins, std::vector<ActionOrder>* orders) {
    const Objective& cause = policy_->objectives[cause_];
    orders->push_back({.policy = policy_->id,
                       .metric = cause.metric,
                       .value = readings_[cause_].value.value_or(0),
                       .threshold = cause.threshold,
                       .severity = cause.severity,
                       .step = ladder_.step,
                       .dry_run = policy_->mode != PolicyMode::kEnforce || policy_->enforced_percent == 0,
                       .action = action,
                       .begins = begins});
    actions_ += begins ? 1 : 0;
    Count(action, begins ? "taken" : "ended");
  }

  void Act(const LadderDecision& decision, std::vector<ActionOrder>* orders) {
    for (int i = 0; i < ladder_.step; ++i) {
      const Action& action = policy_->ladder[static_cast<size_t>(i)];
      const bool entered = decision.direction > 0 && i == ladder_.step - 1;
      if (entered || (decision.repeat && IsOnce(action.kind))) Order(action, /*begins=*/true, orders);
    }
    if (decision.direction >= 0) return;
    const Action& left = policy_->ladder[static_cast<size_t>(ladder_.step)];
    if (!IsOnce(left.kind)) Order(left, /*begins=*/false, orders);
  }

  Gauge& StepGauge() { return metrics_.step.With({policy_->id, std::string(PolicyModeName(policy_->mode))}); }

  // Objectives of one metric (two windows, a minimum beside a maximum) share its series: violated when one of them is.
  void Show() {
    StepGauge().Set(ladder_.step);
    const std::vector<Objective>& objectives = policy_->objectives;
    for (size_t i = 0; i < objectives.size(); ++i) {
      double violated = kNotKnown;
      size_t first = i;
      for (size_t j = objectives.size(); j-- > 0;) {
        if (objectives[j].metric != objectives[i].metric) continue;
        first = j;
        if (verdicts_[j] != Verdict::kUnknown && violated != 1) violated = verdicts_[j] == Verdict::kViolated ? 1 : 0;
      }
      if (first != i) continue;
      metrics_.violated.With({policy_->id, objectives[i].metric}).Set(violated);
      metrics_.value.With({policy_->id, objectives[i].metric}).Set(readings_[i].value.value_or(kNotKnown));
    }
  }

  const Policy* policy_;  // of the engine's set
  EngineMetrics& metrics_;
  std::vector<ObjectiveWindow> windows_;  // as objectives; levels leave theirs empty
  std::vector<ObjectiveReading> readings_;
  std::vector<Verdict> verdicts_;
  LadderState ladder_;
  Hold hold_ = Hold::kNone;
  size_t cause_ = 0;  // the objective behind the newest violation
  uint64_t actions_ = 0;
};

}  // namespace

struct PolicyEngine::Impl {
  // Whom the policies of one set measure.
  struct Measured {
    uint64_t generation;
    ScopeIndex scopes;
  };
  struct Waiting {
    PolicyMask policies;  // of `generation`
    uint64_t generation = 0;
    MonoTime ended;
    OutcomeNumbers numbers;
  };
  struct Shard {
    Mutex mu;
    std::vector<Waiting> waiting ABSL_GUARDED_BY(mu);  // its capacity is there from the start
  };

  Impl(const Clock& c, MetricsRegistry& registry) : clock(c), metrics(registry) {
    folding.reserve(kShardOutcomes);
    for (Shard& shard : shards) {
      MutexLock lock(shard.mu);
      shard.waiting.reserve(kShardOutcomes);
    }
  }

  void Push(const Waiting& waiting) {
    const size_t own = OwnShard();
    for (size_t i = 0; i < kShards; ++i) {
      Shard& shard = shards[(own + i) % kShards];
      MutexLock lock(shard.mu);
      if (shard.waiting.size() == kShardOutcomes) continue;
      shard.waiting.push_back(waiting);
      return;
    }
    metrics.dropped.Add();
  }

  void Fold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    for (Shard& shard : shards) {
      folding.clear();
      {
        MutexLock lock(shard.mu);
        folding.swap(shard.waiting);
      }
      for (const Waiting& waiting : folding) {
        // Recorded while SetPolicies replaced the set: the indexes mean other policies now.
        if (waiting.generation != generation) {
          metrics.dropped.Add();
          continue;
        }
        waiting.policies.ForEach([&](size_t i) ABSL_NO_THREAD_SAFETY_ANALYSIS {  // called here, under mu
          at_work[i].Record(waiting.numbers, waiting.ended);
        });
      }
    }
  }

  void PublishActing() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::vector<int> steps;
    for (const PolicyAtWork& policy : at_work) steps.push_back(policy.step());
    acting.Store(std::make_shared<const ActingPolicies>(set, steps));
  }

  std::vector<ActionOrder> Replace(std::shared_ptr<const PolicySet> next) ABSL_LOCKS_EXCLUDED(mu) {
    std::vector<ActionOrder> orders;
    MutexLock lock(mu);
    Fold();
    const MonoTime now = clock.Now();
    std::deque<PolicyAtWork> before = std::exchange(at_work, {});
    for (PolicyAtWork& policy : before) {
      const bool stays =
          std::find(next->policies().begin(), next->policies().end(), policy.policy()) != next->policies().end();
      if (!stays) policy.End(&orders);
    }
    std::vector<const Scope*> scopes;
    for (const Policy& policy : next->policies()) {
      const auto same =
          std::find_if(before.begin(), before.end(), [&](const PolicyAtWork& old) { return old.policy() == policy; });
      if (same == before.end()) {
        at_work.emplace_back(policy, now, metrics);
      } else {
        same->Follow(policy);
        at_work.push_back(std::move(*same));
      }
      scopes.push_back(policy.mode == PolicyMode::kOff ? nullptr : &policy.scope);
    }
    set = std::move(next);
    ++generation;
    measured.Store(std::make_shared<const Measured>(Measured{generation, ScopeIndex(scopes)}));
    PublishActing();
    return orders;
  }

  const Clock& clock;
  EngineMetrics metrics;
  std::array<Shard, kShards> shards;
  Published<Measured> measured;
  Published<ActingPolicies> acting;

  mutable Mutex mu;  // taken before a shard's
  std::shared_ptr<const PolicySet> set ABSL_GUARDED_BY(mu);
  uint64_t generation ABSL_GUARDED_BY(mu) = 0;           // of `set`
  std::deque<PolicyAtWork> at_work ABSL_GUARDED_BY(mu);  // as set->policies()
  std::vector<Waiting> folding ABSL_GUARDED_BY(mu);
};

PolicyEngine::PolicyEngine(std::shared_ptr<const PolicySet> policies, const Clock& clock, MetricsRegistry& metrics)
    : impl_(std::make_unique<Impl>(clock, metrics)) {
  SLUICE_CHECK(policies != nullptr, "the engine starts with a validated set");
  impl_->Replace(std::move(policies));
}

PolicyEngine::~PolicyEngine() = default;

std::vector<ActionOrder> PolicyEngine::SetPolicies(std::shared_ptr<const PolicySet> policies) {
  SLUICE_CHECK(policies != nullptr, "the engine always has a set");
  return impl_->Replace(std::move(policies));
}

void PolicyEngine::Record(const RequestOutcome& outcome) {
  Impl::Waiting waiting{.ended = outcome.ended, .numbers = NumbersOf(outcome)};
  const bool measured = impl_->measured.Read([&](const std::shared_ptr<const Impl::Measured>& now) {
    waiting.generation = now->generation;
    waiting.policies = now->scopes.Match(outcome.tenant, outcome.model, outcome.qos_class);
    return waiting.policies.Any();
  });
  if (!measured) return;
  if (waiting.ended == MonoTime{}) waiting.ended = impl_->clock.Now();
  impl_->Push(waiting);
}

std::vector<ActionOrder> PolicyEngine::Evaluate(const SystemState& state) {
  std::vector<ActionOrder> orders;
  MutexLock lock(impl_->mu);
  impl_->Fold();
  const MonoTime now = impl_->clock.Now();
  bool stepped = false;
  for (PolicyAtWork& policy : impl_->at_work) {
    const int before = policy.step();
    policy.Evaluate(state, now, &orders);
    stepped |= policy.step() != before;
  }
  if (stepped) impl_->PublishActing();
  return orders;
}

PolicyEffects PolicyEngine::Decide(const Request& request) const {
  return impl_->acting.Read([&](const std::shared_ptr<const ActingPolicies>& acting) {
    PolicyEffects effects = acting->Decide(request);
    if (ActingPolicies::Any(effects)) effects.snapshot = acting;
    return effects;
  });
}

ClassCaps PolicyEngine::class_caps() const {
  return impl_->acting.Read([](const std::shared_ptr<const ActingPolicies>& acting) { return acting->class_caps(); });
}

std::vector<PolicyStatus> PolicyEngine::Status() const {
  std::vector<PolicyStatus> out;
  MutexLock lock(impl_->mu);
  const MonoTime now = impl_->clock.Now();
  for (const PolicyAtWork& policy : impl_->at_work) out.push_back(policy.Status(now));
  return out;
}

std::shared_ptr<const PolicySet> PolicyEngine::policies() const {
  MutexLock lock(impl_->mu);
  return impl_->set;
}

}  // namespace sluice::qos
