// Admission and circuit breaker: what a request pays to be let in and to be settled.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loadtest/components/measure.h"
#include "qos/admission.h"
#include "qos/breaker_registry.h"

namespace sluice::components {
namespace {

using qos::Admission;
using qos::AdmissionRequest;
using qos::Outcome;
using qos::Permit;

const SystemClock kClock;

// What the request flow hands over, from a request that is there already.
struct Request {
  std::string request_id = "0b7e1c52-9f3d-4a68-8c15-d2e94f7a6b30", tenant = "tenant-a", model = "default";

  AdmissionRequest Ask() const {
    return {.request_id = request_id, .tenant = tenant, .model = model, .arrival = kClock.Now()};
  }
};

// Admit and settle while there is room.
void AdmitSettle(benchmark::State& state) {
  static MetricsRegistry metrics;
  static Admission admission({}, kClock, metrics);
  const Request request;
  std::optional<Permit> permit;
  Measure(state, [&] {
    admission.Admit(request.Ask(), [&permit](absl::StatusOr<Permit> answer) { permit.emplace(*std::move(answer)); });
    permit->Settle(Outcome::kSuccess);
  });
}
BENCHMARK(AdmitSettle)->Name("qos/admit_settle")->ThreadRange(1, 2);

// Every permit is taken and `queued` requests wait; all of one class.
struct Busy {
  explicit Busy(int queued) {
    for (int i = 0; i < options.max_concurrent + queued; ++i) Admit();
  }
  ~Busy() { admission.StartDrain({}); }

  // The newest permit stands in for the running ones; the others are settled when dropped.
  void Admit() {
    admission.Admit(request.Ask(), [this](absl::StatusOr<Permit> answer) {
      if (answer.ok()) permits.push_back(*std::move(answer));
    });
  }
  void SettleOne() {
    Permit permit = std::move(permits.back());
    permits.pop_back();
    permit.Settle(Outcome::kSuccess);
  }

  const qos::AdmissionOptions options{.queue_timeout = std::chrono::hours(1),
                                      .default_deadline = std::chrono::hours(1)};
  const Request request;
  MetricsRegistry metrics;
  Admission admission{options, kClock, metrics};
  std::vector<Permit> permits;
};

// The queue is full: one is settled, the oldest waiting one takes its place, a newcomer takes the free queue place.
void HandOver(benchmark::State& state) {
  Busy busy(qos::AdmissionOptions{}.max_queue);
  Measure(state, [&] {
    busy.SettleOne();
    busy.Admit();
  });
}
BENCHMARK(HandOver)->Name("qos/full_queue_hand_over");

// The queue is full: a newcomer of the same class is refused, with reason, numbers and a time to come back.
void Refuse(benchmark::State& state) {
  Busy busy(qos::AdmissionOptions{}.max_queue);
  Measure(state, [&] { busy.Admit(); });
}
BENCHMARK(Refuse)->Name("qos/full_queue_refuse");

// One call through the breaker of a model and pipeline, found in the registry as for each request.
void Breaker(benchmark::State& state) {
  static MetricsRegistry metrics;
  static qos::BreakerRegistry breakers({}, kClock, metrics);
  Measure(state, [&] {
    std::optional<qos::CircuitBreaker::Call> call = breakers.Get("default", "baseline").TryAcquire();
    call->Report(qos::CallOutcome::kSuccess, Duration(1));
  });
}
BENCHMARK(Breaker)->Name("qos/breaker")->ThreadRange(1, 2);

}  // namespace
}  // namespace sluice::components
