// The two pipelines: two PipelinePolicy values over one engine, nothing more.
#pragma once

#include <string_view>

#include "engine/scheduler/pipeline_policy.h"

namespace sluice::engine {

inline constexpr std::string_view kBaselinePipeline = "baseline";
inline constexpr std::string_view kTtftPipeline = "ttft";

// The sub-switches of the ttft_pipeline flag (config/feature-flags.yaml).
struct TtftFeatures {
  bool warmup_queue = true;  // shortest uncached prefill first, with ageing; off: by arrival
  bool kv_prep = true;       // take the KV of a common prefix instead of computing it
};

// FIFO, no cross-request reuse: the control arm.
PipelinePolicy BaselinePolicy();
PipelinePolicy TtftPolicy(const TtftFeatures& features);

}  // namespace sluice::engine
