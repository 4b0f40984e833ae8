// What gate and engine know, in the words of QoS.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "base/clock.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/token_stream.h"
#include "flags/flag.h"
#include "qos/circuit_breaker.h"
#include "qos/qos_engine.h"
#include "services/request.h"

namespace sluice::services {

qos::PolicyUse PolicyUseOf(const flags::Decision& qos_policy);
qos::EngineLoad EngineLoadOf(const engine::SchedulerStatus& status, qos::QosClass seen_by = qos::QosClass::kBatch);

// What the end of a generation, or of a request that the engine did not get, means for the permit.
qos::Outcome OutcomeOf(const engine::GenerationSummary& summary);
qos::Outcome OutcomeOf(const absl::Status& refusal);
// ... and for the breaker: client faults, cancels and deadlines that a client chose too short never count; an engine
// that took the prompt and produced nothing by the deadline does.
qos::CallOutcome BreakerOutcomeOf(const engine::GenerationSummary& summary);
// ... and for quotas and policies. `summary` null: the engine did not get it. Views of `request` and `model`.
qos::QosEngine::End EndOf(const InferenceRequest& request, std::string_view model, MonoTime now, qos::Outcome outcome,
                          const engine::GenerationSummary* summary);

}  // namespace sluice::services
