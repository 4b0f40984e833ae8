// The gate that every request passes: the current FlagSet behind an atomic pointer.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/metrics.h"
#include "flags/flag_changes.h"
#include "flags/flag_set.h"

namespace sluice::flags {

// The decisions of one request, made from one snapshot and frozen.
struct RequestDecisions {
  std::shared_ptr<const FlagSet> snapshot;  // keeps the views of the decisions alive
  Decision phase5, ttft_pipeline, qos_policy;
};

// Thread-safety: thread-safe; readers never wait for a writer.
class FlagGate {
 public:
  // `initial` not null. Metrics: sluice_flag_evaluations_total{flag,variant,reason}, sluice_flag_epoch,
  // sluice_flag_reloads_total{result}, sluice_flag_rollout_ratio{flag} (effective share: FlagSet::EffectiveShare),
  // sluice_flag_sample_ratio_e_value{flag}, sluice_flag_sample_ratio_alarm{flag} (sample_ratio.h; both restart when the
  // flag's percentage or buckets change), sluice_flag_not_found_total{door}.
  FlagGate(std::shared_ptr<const FlagSet> initial, MetricsRegistry& metrics);
  ~FlagGate();

  RequestDecisions Decide(const EvaluationContext& context) const;
  std::shared_ptr<const FlagSet> snapshot() const;

  // Replaces the whole set at once. The caller validated it and chose the epoch (current + 1). Returns after the
  // callbacks of OnChange.
  void Swap(std::shared_ptr<const FlagSet> next);

  // Called on the writer's thread after each Swap, one call at a time. It must not block, call Swap or end a
  // Subscription.
  using ChangeCallback =
      std::function<void(const std::shared_ptr<const FlagSet>& before, const std::shared_ptr<const FlagSet>& after)>;
  // The same for schedules of flags that begin or end: `set` stays, and decides differently from now on.
  using ScheduleCallback =
      std::function<void(const std::shared_ptr<const FlagSet>& set, const std::vector<FlagChange>& changes)>;
  // Ends with the Subscription, whose destructor waits for a running callback. It may outlive the gate.
  class Subscription;
  [[nodiscard]] Subscription OnChange(ChangeCallback callback, ScheduleCallback scheduled = nullptr);

  // Tells of the schedules that began or ended since the last call (the first call only notes the time). For a
  // housekeeper: decisions look at their own time and need no call. Nothing is told when the clock was set back.
  std::vector<FlagChange> PassTime(WallTime now);

  // Counts a reload that was refused as a whole; the current set stays.
  void CountFailedReload();

  // Counts that a client asked for a flag that there is not, by its door ("flagd", "ofrep", "grpc"). Takes a lock.
  void CountNotFound(std::string_view door) const;

 private:
  struct Impl;
  struct Callbacks;
  struct Subscribers;
  std::unique_ptr<Impl> impl_;
};

// Thread-safety: one thread at a time.
class FlagGate::Subscription {
 public:
  Subscription() = default;
  Subscription(Subscription&& other) noexcept = default;
  Subscription& operator=(Subscription other) noexcept;
  ~Subscription();

 private:
  friend class FlagGate;
  std::shared_ptr<Subscribers> subscribers_;  // null: none
  std::shared_ptr<const Callbacks> callbacks_;
};

}  // namespace sluice::flags
