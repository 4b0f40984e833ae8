// Everything that is counted and logged about requests, behind verbs: the vllm:* names that dashboards and llm-d
// routers know, and one structured log line per finished request. Reference: docs/operations.md.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "config/server_config.h"
#include "engine/scheduler/token_stream.h"
#include "flags/flag_gate.h"
#include "services/request.h"

namespace sluice::services {

// Thread-safety: thread-safe. Never logs prompts or generated text.
class RequestProbe {
 public:
  RequestProbe(MetricsRegistry& metrics, const Clock& clock,
               config::FlagEvaluations flag_evaluations = config::FlagEvaluations::kOff);
  ~RequestProbe();

  // Once the gate has decided about a request (flag_evaluation_log.h; `log.flag_evaluations`).
  void Decided(const InferenceRequest& request, std::string_view targeting_key,
               const flags::RequestDecisions& decisions);

  // One call per request, at its end. `summary` null: it never reached the engine (status says why). `info.model` is a
  // model that exists, or the status is NOT_FOUND or PERMISSION_DENIED (it is then not used as a label).
  void Finished(const InferenceRequest& request, const FlowInfo& info, const absl::Status& status,
                const engine::GenerationSummary* summary);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
