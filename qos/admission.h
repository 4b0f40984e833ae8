// May this request run, when, and with what limits? A concurrency limit, a bounded class-ordered queue, a deadline
// check. One Permit per running request; dropping it settles as failed, so nothing ever leaks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "qos/qos_class.h"

namespace sluice::qos {

struct AdmissionOptions {
  int max_concurrent = 100;                           // permits at the same time
  int max_queue = 256;                                // waiting requests, all classes together; 0: nothing waits
  Duration queue_timeout = std::chrono::seconds(30);  // longest wait; then RESOURCE_EXHAUSTED (QUEUE_TIMEOUT)
  Duration starvation_after =
      std::chrono::seconds(5);  // waiting this long is promoted by one class (repeatedly); zero: never
  Duration default_deadline = std::chrono::seconds(30);  // for requests without one (requestTimeout); zero: none
};

struct AdmissionRequest {
  std::string_view request_id, tenant, model;  // valid for the call
  QosClass qos_class = QosClass::kStandard;    // already clamped to the tenant's highest
  int prompt_tokens = 0, max_tokens = 0;
  MonoTime arrival{};  // default_deadline counts from here; unset: from Admit
  MonoTime deadline = kInfiniteFuture;
};

enum class Outcome {
  kSuccess,
  kFailure,      // the server's fault
  kClientFault,  // bad input found late
  kCancelled,
  kDeadline,
};

class Admission;

// The right to run. Move-only, thread-compatible. Settle once; dropping it unsettled counts as kFailure.
class Permit {
 public:
  Permit(Permit&& other) noexcept;
  Permit& operator=(Permit&& other) noexcept;
  ~Permit();
  void Settle(Outcome outcome);
  Duration queue_wait() const { return queue_wait_; }
  QosClass qos_class() const { return class_; }

 private:
  friend class Admission;
  Permit(Admission* admission, QosClass c, Duration wait, MonoTime granted)
      : admission_(admission), class_(c), queue_wait_(wait), granted_(granted) {}
  Admission* admission_;  // must outlive the permit; null: settled or moved from
  QosClass class_;
  Duration queue_wait_;
  MonoTime granted_;
};

// "admitted;class=standard;queue_ms=0" or "rejected;reason=QUEUE_FULL" — the trailer and log form.
std::string ExplainAdmitted(const Permit& permit);
std::string ExplainRejected(const absl::Status& status);

// Thread-safety: thread-safe. Bounded by AdmissionOptions. Callbacks run without any lock held, on the caller's
// thread (immediate answer), or on the thread that settled a permit, called Tick, Cancel, StartDrain, or whose Admit
// took the place of a less urgent request. A callback may settle its permit or call Admission: what that answers to
// *other* requests follows after the callback has returned.
class Admission {
 public:
  using Callback = absl::AnyInvocable<void(absl::StatusOr<Permit>)>;

  // Metrics: sluice_qos_admissions_total{class,outcome} ("admitted" or the reason), sluice_qos_running,
  // sluice_qos_queued{class}, sluice_qos_queue_wait_seconds{class} (of the admitted),
  // sluice_qos_settlements_total{class,outcome}.
  Admission(const AdmissionOptions& options, const Clock& clock, MetricsRegistry& metrics);
  // Answers what still waits with DRAINING. Requires: every permit is settled.
  ~Admission();

  // Answers exactly once: a Permit, or RESOURCE_EXHAUSTED (QUEUE_FULL, QUEUE_TIMEOUT; both with retry_after),
  // DEADLINE_EXCEEDED (DEADLINE_IN_QUEUE), CANCELLED (CLIENT_CANCELLED), UNAVAILABLE (DRAINING, with retry_after).
  // A full queue evicts its least urgent request (QUEUE_FULL) for a more urgent newcomer, else refuses the newcomer.
  // Returns a ticket for Cancel; 0 when already answered.
  uint64_t Admit(AdmissionRequest request, Callback answer);

  // The client left: answers CANCELLED if it still waits.
  void Cancel(uint64_t ticket);

  // Expires what waited too long. Call every few milliseconds.
  void Tick();

  // From now on refuse everything new and everything that waits, with DRAINING.
  void StartDrain(Duration retry_after);

  int running() const;
  int queued() const;

 private:
  friend class Permit;
  void Release(const Permit& permit, Outcome outcome);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
