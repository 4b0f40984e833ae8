// What Admission answers: a permit, or why not.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/reason.h"
#include "qos/qos_class.h"

namespace sluice::qos {

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
  // `output_tokens` of a success teach predictions what share of max_tokens answers take; -1: not known. `ttft`, from
  // arrival, teaches them how late first tokens are; zero: there was none.
  void Settle(Outcome outcome, int output_tokens = -1, Duration ttft = Duration::zero());
  Duration queue_wait() const { return queue_wait_; }
  QosClass qos_class() const { return class_; }
  // What would have been the refusal, were feasibility enforced; kOk: none.
  Reason would_refuse() const { return would_refuse_; }

 private:
  friend class Admission;
  Permit(Admission* admission, QosClass c, Duration wait, MonoTime granted, int max_tokens, Duration predicted_ttft,
         Reason would_refuse)
      : admission_(admission),
        class_(c),
        would_refuse_(would_refuse),
        max_tokens_(max_tokens),
        predicted_ttft_(predicted_ttft),
        queue_wait_(wait),
        granted_(granted) {}
  Admission* admission_;  // must outlive the permit; null: settled or moved from
  QosClass class_;
  Reason would_refuse_;
  int max_tokens_;
  Duration predicted_ttft_;  // uncorrected; zero: none
  Duration queue_wait_;
  MonoTime granted_;
};

// Numbers only: a refusal costs no allocation until somebody wants to read it. Refusals are what an overloaded server
// does most.
struct Refusal {
  Reason reason = Reason::kOk;
  QosClass qos_class = QosClass::kStandard;
  std::optional<Duration> retry_after;
  Duration waited = Duration::zero();     // in the queue
  Duration allowed = Duration::zero();    // the limit that was passed, or that a prediction passes
  Duration predicted = Duration::zero();  // of *_UNREACHABLE
  std::string_view full;                  // QUEUE_FULL by a limit of the class: its unit, "requests"; lives for ever
  int64_t taken = 0, limit = 0;           // ... what of it is taken, and the limit
  std::optional<QosClass> gave_way_to;    // QUEUE_FULL of a request that waited
  int running = 0, max_running = 0;       // permits
  int queued = 0, max_queued = 0;         // all classes together

  // RESOURCE_EXHAUSTED, UNAVAILABLE ... with ErrorDetails, as Describe(reason) says.
  absl::Status ToStatus() const;
};

// A Permit or a Refusal; move-only.
class Answer {
 public:
  Answer(Permit permit) : value_(std::move(permit)) {}  // NOLINT(google-explicit-constructor): as absl::StatusOr
  Answer(const Refusal& refusal) : value_(refusal) {}   // NOLINT(google-explicit-constructor)
  bool ok() const { return std::holds_alternative<Permit>(value_); }
  // Require ok().
  Permit& operator*() & { return std::get<Permit>(value_); }
  Permit&& operator*() && { return std::get<Permit>(std::move(value_)); }
  Permit* operator->() { return &std::get<Permit>(value_); }
  // Requires: not ok().
  const Refusal& refusal() const { return std::get<Refusal>(value_); }
  // Made on each call.
  absl::Status status() const { return ok() ? absl::OkStatus() : refusal().ToStatus(); }

  // For callbacks that want the status anyway.
  operator absl::StatusOr<Permit>() && {  // NOLINT(google-explicit-constructor)
    if (!ok()) return refusal().ToStatus();
    return std::get<Permit>(std::move(value_));
  }

 private:
  std::variant<Permit, Refusal> value_;
};

using AdmissionCallback = absl::AnyInvocable<void(Answer)>;

// "admitted;class=standard;queue_ms=0" or "rejected;reason=QUEUE_FULL" — the trailer and log form. A permit that
// feasibility in dry_run would have refused says so: ";dry_run=DEADLINE_UNREACHABLE".
std::string ExplainAdmitted(const Permit& permit);
std::string ExplainRejected(const absl::Status& status);

}  // namespace sluice::qos
