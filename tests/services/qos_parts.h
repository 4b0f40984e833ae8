// Everything of QoS around an admission, without policies, quotas or pressure: for tests of doors.
#pragma once

#include "base/check.h"
#include "services/qos_control.h"

namespace sluice::test {

struct QosParts {
  QosParts(const Clock& clock, MetricsRegistry& metrics)
      : admission({}, clock, metrics),
        breakers({}, clock, metrics),
        policies(NoPolicies(), clock, metrics),
        quotas({}, clock, metrics),
        overload({}, metrics),
        retries({}, clock, metrics),
        decisions(100, nullptr),
        engine({policies, quotas, admission, overload, retries, decisions, clock}) {}

  static std::shared_ptr<const qos::PolicySet> NoPolicies() {
    auto none = qos::PolicySet::Create({}, 1);
    SLUICE_CHECK(none.ok(), "no policies are valid policies");
    return *none;
  }

  qos::Admission admission;
  qos::BreakerRegistry breakers;
  qos::PolicyEngine policies;
  qos::Quotas quotas;
  qos::OverloadGuard overload;
  qos::RetryBudget retries;
  qos::DecisionLog decisions;
  qos::QosEngine engine;
};

// The thread beside them. `models` outlives it.
struct QosControlParts {
  QosControlParts(QosParts& parts, engine::ModelPool& models, const Clock& clock, MetricsRegistry& metrics)
      : webhooks(
            "test", clock, [] { return 0.5; }, metrics),
        control({.engine = parts.engine,
                 .policies = parts.policies,
                 .quotas = parts.quotas,
                 .admission = parts.admission,
                 .breakers = parts.breakers,
                 .overload = parts.overload,
                 .models = models,
                 .metrics = metrics,
                 .clock = clock,
                 .read_pressure =
                     [] {
                       return qos::Pressure{-1, -1, -1};
                     },
                 .webhooks = webhooks,
                 .concurrency_limit = {.enabled = false}}) {}

  services::Webhooks webhooks;
  services::QosControl control;
};

}  // namespace sluice::test
