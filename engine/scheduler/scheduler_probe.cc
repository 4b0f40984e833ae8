#include "engine/scheduler/scheduler_probe.h"

namespace sluice::engine {
namespace {

const std::vector<std::string> kVllmLabels = {"model_name", "engine"};
const std::vector<std::string> kLabels = {"model"};

const std::vector<double> kStepSeconds = {.001, .002, .005, .01, .02, .03, .05, .075, .1, .15,
                                          .2,   .3,   .5,   .75, 1,   1.5, 2,   3,    5,  10};
// vLLM's inter-token buckets, so that its dashboards draw ours.
const std::vector<double> kInterTokenSeconds = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                                .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kIterationTokens = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

}  // namespace

EngineMetrics::EngineMetrics(MetricsRegistry& r)
    : running_(r.AddGauge("vllm:num_requests_running", "Requests that hold a slot.", kVllmLabels)),
      waiting_(r.AddGauge("vllm:num_requests_waiting", "Requests that wait for a slot.", kVllmLabels)),
      paused_(r.AddGauge("sluice_engine_paused", "Running requests whose reader is slow.", kLabels)),
      orphaned_(r.AddGauge("sluice_engine_orphaned_sequences",
                           "Slots held by a request that already ended; anything but 0 is a bug.", kLabels)),
      kv_usage_(r.AddGauge("vllm:kv_cache_usage_perc", "Share of KV tokens in use by running requests, 0 to 1.",
                           kVllmLabels)),
      healthy_(r.AddGauge("sluice_engine_healthy", "1, or 0 after repeated backend failures.", kLabels)),
      steps_(r.AddCounter("sluice_engine_steps_total", "Decode calls.", kLabels)),
      preemptions_(r.AddCounter("vllm:num_preemptions_total", "Always 0: a slot is never taken from a running request.",
                                kVllmLabels)),
      expired_before_prefill_(r.AddCounter("sluice_engine_expired_before_prefill_total",
                                           "Requests whose deadline passed before any of their prompt was computed.",
                                           kLabels)),
      slow_readers_(
          r.AddCounter("sluice_engine_slow_readers_total", "Streams ended because nobody read them.", kLabels)),
      prefill_tokens_(r.AddCounter("sluice_engine_prefill_tokens_total", "Prompt tokens computed.", kLabels)),
      decode_tokens_(r.AddCounter("sluice_engine_decode_tokens_total", "Output rows computed.", kLabels)),
      copied_tokens_(
          r.AddCounter("sluice_engine_prefix_copied_tokens_total", "KV tokens copied instead of computed.", kLabels)),
      failures_(r.AddCounter("sluice_engine_backend_failures_total", "Failed backend calls.", kLabels)),
      iteration_tokens_(
          r.AddHistogram("vllm:iteration_tokens_total", "Tokens per engine step.", kIterationTokens, kVllmLabels)),
      inter_token_(r.AddHistogram("vllm:inter_token_latency_seconds", "Gap between two tokens of a stream.",
                                  kInterTokenSeconds, kVllmLabels)),
      step_seconds_(r.AddHistogram("sluice_engine_step_seconds", "Duration of a step; kind = decode, mixed or prefill.",
                                   kStepSeconds, {"model", "kind"})) {}

SchedulerProbe::SchedulerProbe(EngineMetrics& m, const std::string& model)
    : running_(m.running_.With({model, "0"})),
      waiting_(m.waiting_.With({model, "0"})),
      paused_(m.paused_.With({model})),
      orphaned_(m.orphaned_.With({model})),
      kv_usage_(m.kv_usage_.With({model, "0"})),
      healthy_(m.healthy_.With({model})),
      steps_(m.steps_.With({model})),
      expired_before_prefill_(m.expired_before_prefill_.With({model})),
      slow_readers_(m.slow_readers_.With({model})),
      prefill_tokens_(m.prefill_tokens_.With({model})),
      decode_tokens_(m.decode_tokens_.With({model})),
      copied_tokens_(m.copied_tokens_.With({model})),
      failures_(m.failures_.With({model})),
      iteration_tokens_(m.iteration_tokens_.With({model, "0"})),
      inter_token_(m.inter_token_.With({model, "0"})),
      step_decode_(m.step_seconds_.With({model, "decode"})),
      step_mixed_(m.step_seconds_.With({model, "mixed"})),
      step_prefill_(m.step_seconds_.With({model, "prefill"})) {
  m.preemptions_.With({model, "0"});
}

void SchedulerProbe::StepDone(const StepShape& shape, Duration elapsed) {
  steps_.Add();
  prefill_tokens_.Add(shape.prefill_tokens);
  decode_tokens_.Add(shape.decode_rows);
  iteration_tokens_.Observe(shape.decode_rows + shape.prefill_tokens);
  Histogram& kind = shape.prefill_tokens == 0 ? step_decode_ : shape.decode_rows == 0 ? step_prefill_ : step_mixed_;
  kind.Observe(ToSeconds(elapsed));
}

void SchedulerProbe::Publish(const SchedulerStatus& s) {
  running_.Set(s.running);
  waiting_.Set(s.waiting);
  paused_.Set(s.paused);
  orphaned_.Set(s.orphaned);
  kv_usage_.Set(s.kv_tokens_total == 0 ? 0 : static_cast<double>(s.kv_tokens_used) / s.kv_tokens_total);
  healthy_.Set(s.healthy ? 1 : 0);
}

}  // namespace sluice::engine
