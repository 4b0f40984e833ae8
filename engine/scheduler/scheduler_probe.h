// All metrics of the engine, behind verbs. Names: vllm:* where dashboards know them, sluice_engine_* for the rest.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/step_cost.h"

namespace sluice::engine {

// The families, registered once per registry and shared by every model's probe. Thread-safe; outlives the schedulers.
class EngineMetrics {
 public:
  explicit EngineMetrics(MetricsRegistry& registry);

 private:
  friend class SchedulerProbe;
  Family<Gauge>&running_, &waiting_, &paused_, &orphaned_, &kv_usage_, &healthy_;
  Family<Counter>&steps_, &preemptions_, &expired_before_prefill_, &slow_readers_, &prefill_tokens_, &decode_tokens_,
      &copied_tokens_, &failures_;
  Family<Histogram>&iteration_tokens_, &inter_token_, &step_seconds_;
};

// One model's series. Thread-safety: engine thread only, but for what the registry reads.
class SchedulerProbe {
 public:
  SchedulerProbe(EngineMetrics& metrics, const std::string& model);

  void StepDone(const StepShape& shape, Duration elapsed);
  void TokenGap(Duration gap) { inter_token_.Observe(ToSeconds(gap)); }
  void PrefixCopied(int tokens) { copied_tokens_.Add(tokens); }
  void ExpiredBeforePrefill() { expired_before_prefill_.Add(); }
  void SlowReader() { slow_readers_.Add(); }
  void BackendFailed() { failures_.Add(); }
  void Publish(const SchedulerStatus& status);

 private:
  Gauge &running_, &waiting_, &paused_, &orphaned_, &kv_usage_, &healthy_;
  Counter &steps_, &expired_before_prefill_, &slow_readers_, &prefill_tokens_, &decode_tokens_, &copied_tokens_,
      &failures_;
  Histogram &iteration_tokens_, &inter_token_, &step_decode_, &step_mixed_, &step_prefill_;
};

}  // namespace sluice::engine
