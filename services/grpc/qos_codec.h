// Messages of QosService ↔ what the QoS engine knows.
#pragma once

#include "absl/status/status.h"
#include "qos/breaker_registry.h"
#include "qos/decision_log.h"
#include "qos/policy.h"
#include "qos/policy_engine.h"
#include "services/grpc/doors.h"
#include "sluice/v1/qos.pb.h"

namespace sluice::services {

void EncodePolicy(const qos::Policy& policy, const qos::PolicyStatus& status, v1::PolicyStatus& out);
void EncodeDecision(const qos::DecisionRecord& record, v1::Decision& out);
void EncodeBreaker(const qos::BreakerRegistry::Entry& entry, v1::BreakerStatus& out);

// INVALID_ARGUMENT naming every violated field.
absl::Status CheckDecisionQuery(const v1::ListDecisionsRequest& request, const FieldLimits& limits);
absl::Status CheckExplain(const v1::ExplainQosRequest& request, const FieldLimits& limits);
absl::Status CheckSetBreaker(const v1::SetBreakerRequest& request, const FieldLimits& limits);

}  // namespace sluice::services
