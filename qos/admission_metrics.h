// The series of Admission, found once.
#pragma once

#include <array>

#include "base/clock.h"
#include "base/metrics.h"
#include "qos/class_queue.h"
#include "qos/permit.h"

namespace sluice::qos {

// Thread-safety: thread-compatible; every call is a few relaxed atomic writes.
class AdmissionMetrics {
 public:
  explicit AdmissionMetrics(MetricsRegistry& registry);
  void Admitted(QosClass c, Duration waited, int running);
  void Refused(QosClass c, Reason reason);
  void WouldRefuse(QosClass c, Reason reason);
  void Promoted(QosClass c) { Of(c).promotions->Add(); }
  void Settled(QosClass c, Outcome outcome, int running, double correction);
  void Waiting(QosClass c, const ClassQueue& queue);
  void SetLimit(int limit) { limit_.Set(limit); }

 private:
  static constexpr std::array<Reason, 7> kReasons = {
      Reason::kQueueFull, Reason::kQueueTimeout,        Reason::kDeadlineInQueue, Reason::kClientCancelled,
      Reason::kDraining,  Reason::kDeadlineUnreachable, Reason::kTtftUnreachable};
  static constexpr int kOutcomes = 5;
  struct Class {
    Counter *admitted, *promotions;
    std::array<Counter*, kReasons.size()> refused, would_refuse;
    std::array<Counter*, kOutcomes> settlements;
    Gauge *queued, *queued_tokens, *correction;
    Histogram* queue_wait;
  };
  static size_t IndexOf(Reason reason);
  Class& Of(QosClass c) { return classes_[static_cast<size_t>(c)]; }

  std::array<Class, kQosClassCount> classes_{};
  Gauge &running_, &limit_;
};

}  // namespace sluice::qos
