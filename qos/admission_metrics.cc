#include "qos/admission_metrics.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "base/check.h"

namespace sluice::qos {
namespace {

constexpr std::array<std::string_view, 5> kOutcomeNames = {"success", "failure", "client_fault", "cancelled",
                                                           "deadline"};
constexpr double kWaitBounds[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};

}  // namespace

AdmissionMetrics::AdmissionMetrics(MetricsRegistry& registry)
    : running_(registry.AddGauge("sluice_qos_running", "Permits in use").With({})),
      limit_(registry.AddGauge("sluice_qos_concurrency_limit", "Permits that may be in use now").With({})) {
  auto& admissions =
      registry.AddCounter("sluice_qos_admissions_total", "Answers to requests for a permit", {"class", "outcome"});
  auto& would_refuse = registry.AddCounter("sluice_qos_would_refuse_total",
                                           "Requests that feasibility in dry_run would refuse", {"class", "outcome"});
  auto& settlements = registry.AddCounter("sluice_qos_settlements_total", "Permits given back", {"class", "outcome"});
  auto& promotions =
      registry.AddCounter("sluice_qos_promotions_total", "Requests run before a better class by waiting", {"class"});
  auto& queued = registry.AddGauge("sluice_qos_queued", "Requests that wait for a permit", {"class"});
  auto& tokens =
      registry.AddGauge("sluice_qos_queued_tokens", "Uncached prompt tokens and max_tokens of them", {"class"});
  auto& wait = registry.AddHistogram("sluice_qos_queue_wait_seconds", "Time from arrival to permit",
                                     {std::begin(kWaitBounds), std::end(kWaitBounds)}, {"class"});
  auto& corrections = registry.AddGauge("sluice_qos_ttft_correction",
                                        "By which predictions of the first token are multiplied, as learnt", {"class"});
  for (int i = 0; i < kQosClassCount; ++i) {
    const std::string name(QosClassName(static_cast<QosClass>(i)));
    Class& c = Of(static_cast<QosClass>(i));
    c.admitted = &admissions.With({name, "admitted"});
    for (size_t r = 0; r < kReasons.size(); ++r) {
      const std::string reason(ReasonWord(kReasons[r]));
      c.refused[r] = &admissions.With({name, reason});
      const bool predicted = kReasons[r] == Reason::kDeadlineUnreachable || kReasons[r] == Reason::kTtftUnreachable;
      c.would_refuse[r] = predicted ? &would_refuse.With({name, reason}) : nullptr;
    }
    for (size_t o = 0; o < kOutcomeNames.size(); ++o) {
      c.settlements[o] = &settlements.With({name, std::string(kOutcomeNames[o])});
    }
    c.promotions = &promotions.With({name});
    c.queued = &queued.With({name});
    c.queued_tokens = &tokens.With({name});
    c.queue_wait = &wait.With({name});
    c.correction = &corrections.With({name});
    c.correction->Set(1);
  }
}

size_t AdmissionMetrics::IndexOf(Reason reason) {
  const auto found = std::find(kReasons.begin(), kReasons.end(), reason);
  SLUICE_CHECK(found != kReasons.end(), "a refusal of admission has one of its reasons");
  return static_cast<size_t>(found - kReasons.begin());
}

void AdmissionMetrics::Admitted(QosClass c, Duration waited, int running) {
  running_.Set(running);
  Of(c).admitted->Add();
  Of(c).queue_wait->Observe(ToSeconds(waited));
}

void AdmissionMetrics::Refused(QosClass c, Reason reason) { Of(c).refused[IndexOf(reason)]->Add(); }

void AdmissionMetrics::WouldRefuse(QosClass c, Reason reason) { Of(c).would_refuse[IndexOf(reason)]->Add(); }

void AdmissionMetrics::Settled(QosClass c, Outcome outcome, int running, double correction) {
  running_.Set(running);
  Of(c).correction->Set(correction);
  Of(c).settlements[static_cast<size_t>(outcome)]->Add();
}

void AdmissionMetrics::Waiting(QosClass c, const ClassQueue& queue) {
  Of(c).queued->Set(static_cast<double>(queue.size()));
  Of(c).queued_tokens->Set(static_cast<double>(queue.tokens()));
}

}  // namespace sluice::qos
