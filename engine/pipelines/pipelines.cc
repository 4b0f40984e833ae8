#include "engine/pipelines/pipelines.h"

#include <string>

namespace sluice::engine {

PipelinePolicy BaselinePolicy() {
  return {.name = std::string(kBaselinePipeline), .order = PrefillOrder::kFifo, .reuse_prefix = false};
}

PipelinePolicy TtftPolicy(const TtftFeatures& features) {
  return {.name = std::string(kTtftPipeline),
          .order = features.warmup_queue ? PrefillOrder::kShortestUncachedFirst : PrefillOrder::kFifo,
          .reuse_prefix = features.kv_prep};
}

}  // namespace sluice::engine
