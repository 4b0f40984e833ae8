#include "flags/flag_gate.h"

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "base/published.h"
#include "flags/sample_ratio.h"

namespace sluice::flags {
namespace {

constexpr size_t kReasons = static_cast<size_t>(Reason::kSchedule) + 1;

bool CanBeIn(Reason reason) {
  return reason == Reason::kSplit || reason == Reason::kStatic || reason == Reason::kTargetingMatch ||
         reason == Reason::kDefault;
}

struct GateMetrics {
  explicit GateMetrics(MetricsRegistry& metrics)
      : evaluations(metrics.AddCounter("sluice_flag_evaluations_total", "Decisions of the feature-flag gate",
                                       {"flag", "variant", "reason"})),
        e_value(metrics.AddGauge("sluice_flag_sample_ratio_e_value",
                                 "Evidence that the observed share is not the configured one; 1: none", {"flag"})),
        alarm(metrics.AddGauge("sluice_flag_sample_ratio_alarm", "1: the observed share is not the configured one",
                               {"flag"})) {}
  Family<Counter>& evaluations;
  Family<Gauge>& e_value;
  Family<Gauge>& alarm;
};

// One flag that every request asks for: its counters, found without a lock ([reason][in]), and its sample ratio.
class WatchedFlag {
 public:
  WatchedFlag(GateMetrics& metrics, std::string_view flag)
      : flag_(flag), sample_ratio_(metrics.e_value.With({flag_}), metrics.alarm.With({flag_})) {
    for (size_t r = 0; r < kReasons; ++r) {
      const Reason reason = static_cast<Reason>(r);
      const std::string name(ReasonName(reason));
      counters_[r][0] = &metrics.evaluations.With({flag_, "off", name});
      if (CanBeIn(reason)) counters_[r][1] = &metrics.evaluations.With({flag_, "on", name});
    }
  }

  void Count(const Decision& decision) {
    counters_[static_cast<size_t>(decision.reason)][decision.in && CanBeIn(decision.reason) ? 1 : 0]->Add();
    if (decision.reason != Reason::kSplit || decision.bucket < 0) return;
    sample_ratio_.Observe(static_cast<uint32_t>(decision.bucket) < decision.threshold, decision.sample,
                          decision.threshold);
  }

  // `before` null: none.
  void Follow(const FlagSet* before, const FlagSet& after) {
    const std::optional<double> share = after.ExpectedSplitShare(flag_);
    const Flag* const was = before == nullptr ? nullptr : before->Find(flag_);
    const Flag* const is = after.Find(flag_);
    const bool same = was != nullptr && is != nullptr && was->rollout_bps == is->rollout_bps && was->salt == is->salt &&
                      was->hash_version == is->hash_version && before->ExpectedSplitShare(flag_) == share;
    if (!same) sample_ratio_.Restart(share, is == nullptr ? 0 : SplitThreshold(is->hash_version, is->rollout_bps));
  }

 private:
  const std::string flag_;
  std::array<std::array<Counter*, 2>, kReasons> counters_{};
  SampleRatio sample_ratio_;
};

}  // namespace

struct FlagGate::Callbacks {
  ChangeCallback changed;
  ScheduleCallback scheduled;  // may be empty
};

struct FlagGate::Subscribers {
  Mutex mu;  // held for a whole Swap, so that callbacks see each change once and in order
  std::vector<std::shared_ptr<const Callbacks>> callbacks ABSL_GUARDED_BY(mu);
  std::optional<WallTime> passed ABSL_GUARDED_BY(mu);  // of the last PassTime
};

FlagGate::Subscription& FlagGate::Subscription::operator=(Subscription other) noexcept {
  std::swap(subscribers_, other.subscribers_);
  std::swap(callbacks_, other.callbacks_);
  return *this;
}

FlagGate::Subscription::~Subscription() {
  if (subscribers_ == nullptr) return;
  MutexLock lock(subscribers_->mu);
  std::erase(subscribers_->callbacks, callbacks_);
}

struct FlagGate::Impl {
  explicit Impl(MetricsRegistry& metrics)
      : gate_metrics(metrics),
        epoch(metrics.AddGauge("sluice_flag_epoch", "Epoch of the flag configuration in use").With({})),
        reloads(metrics.AddCounter("sluice_flag_reloads_total", "Replacements of the flag configuration", {"result"})),
        rollout_ratio(metrics.AddGauge("sluice_flag_rollout_ratio",
                                       "Share of keys that get the flag, parents and emergencies included", {"flag"})),
        not_found(
            metrics.AddCounter("sluice_flag_not_found_total", "Clients asked for a flag that there is not", {"door"})),
        phase5(gate_metrics, kPhase5),
        ttft_pipeline(gate_metrics, kTtftPipeline),
        qos_policy(gate_metrics, kQosPolicy),
        reload_ok(reloads.With({"ok"})),
        reload_failed(reloads.With({"failed"})) {}

  void Publish(std::shared_ptr<const FlagSet> next) ABSL_LOCKS_EXCLUDED(mu) {
    MutexLock lock(mu);
    const std::shared_ptr<const FlagSet> before = current.Load();
    const auto show = [&](const FlagSet& set) {
      for (const Flag& flag : set.flags()) rollout_ratio.With({flag.key}).Set(next->EffectiveShare(flag.key));
    };
    if (before != nullptr) show(*before);  // flags that the new set no longer has fall to 0
    show(*next);
    for (WatchedFlag* flag : {&phase5, &ttft_pipeline, &qos_policy}) {
      flag->Follow(before.get(), *next);
    }
    epoch.Set(static_cast<double>(next->epoch()));
    current.Store(std::move(next));
  }

  GateMetrics gate_metrics;
  Gauge& epoch;
  Family<Counter>& reloads;
  Family<Gauge>& rollout_ratio;
  Family<Counter>& not_found;
  const std::shared_ptr<Subscribers> subscribers = std::make_shared<Subscribers>();
  WatchedFlag phase5, ttft_pipeline, qos_policy;
  Counter& reload_ok;
  Counter& reload_failed;

  Published<FlagSet> current;
  Mutex mu;  // one writer at a time
};

FlagGate::FlagGate(std::shared_ptr<const FlagSet> initial, MetricsRegistry& metrics)
    : impl_(std::make_unique<Impl>(metrics)) {
  SLUICE_CHECK(initial != nullptr, "the gate starts with a validated set");
  impl_->Publish(std::move(initial));
}

FlagGate::~FlagGate() = default;

RequestDecisions FlagGate::Decide(const EvaluationContext& context) const {
  RequestDecisions out{.snapshot = impl_->current.Load()};
  out.phase5 = out.snapshot->Evaluate(kPhase5, context);
  out.ttft_pipeline = out.snapshot->Evaluate(kTtftPipeline, context, &out.phase5);
  out.qos_policy = out.snapshot->Evaluate(kQosPolicy, context, &out.phase5);
  impl_->phase5.Count(out.phase5);
  impl_->ttft_pipeline.Count(out.ttft_pipeline);
  impl_->qos_policy.Count(out.qos_policy);
  return out;
}

std::shared_ptr<const FlagSet> FlagGate::snapshot() const { return impl_->current.Load(); }

void FlagGate::Swap(std::shared_ptr<const FlagSet> next) {
  SLUICE_CHECK(next != nullptr, "the gate always has a set");
  MutexLock lock(impl_->subscribers->mu);
  const std::shared_ptr<const FlagSet> before = impl_->current.Load();
  impl_->Publish(next);
  impl_->reload_ok.Add();
  for (const auto& callback : impl_->subscribers->callbacks) callback->changed(before, next);
}

std::vector<FlagChange> FlagGate::PassTime(WallTime now) {
  MutexLock lock(impl_->subscribers->mu);
  const WallTime before = std::exchange(impl_->subscribers->passed, now).value_or(now);
  const std::shared_ptr<const FlagSet> set = impl_->current.Load();
  std::vector<FlagChange> changes = FindScheduleChanges(*set, before, now);
  if (changes.empty()) return changes;
  for (const auto& callback : impl_->subscribers->callbacks) {
    if (callback->scheduled) callback->scheduled(set, changes);
  }
  return changes;
}

FlagGate::Subscription FlagGate::OnChange(ChangeCallback callback, ScheduleCallback scheduled) {
  Subscription subscription;
  subscription.subscribers_ = impl_->subscribers;
  subscription.callbacks_ = std::make_shared<const Callbacks>(Callbacks{std::move(callback), std::move(scheduled)});
  MutexLock lock(impl_->subscribers->mu);
  impl_->subscribers->callbacks.push_back(subscription.callbacks_);
  return subscription;
}

void FlagGate::CountFailedReload() { impl_->reload_failed.Add(); }

void FlagGate::CountNotFound(std::string_view door) const { impl_->not_found.With({std::string(door)}).Add(); }

}  // namespace sluice::flags
