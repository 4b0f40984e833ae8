#include "qos/permit.h"

#include "base/status.h"
#include "fmt/format.h"
#include "qos/admission.h"

namespace sluice::qos {
namespace {

int64_t WholeMillis(Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); }

std::string Load(const Refusal& r) {
  return fmt::format("{} of {} permits in use, {} of {} queue places taken", r.running, r.max_running, r.queued,
                     r.max_queued);
}

std::string QueueFull(const Refusal& r) {
  if (r.gave_way_to) {
    return fmt::format("queue full, {} request gave way to {}: {}", QosClassName(r.qos_class),
                       QosClassName(*r.gave_way_to), Load(r));
  }
  if (r.full.empty()) return fmt::format("queue full: {}", Load(r));
  return fmt::format("queue of class {} full, {} of {} {} taken: {}", QosClassName(r.qos_class), r.taken, r.limit,
                     r.full, Load(r));
}

std::string Message(const Refusal& r) {
  switch (r.reason) {
    case Reason::kQueueFull:
      return QueueFull(r);
    case Reason::kQueueTimeout:
      return fmt::format("waited {} ms in the queue, the limit is {} ms: {}", WholeMillis(r.waited),
                         WholeMillis(r.allowed), Load(r));
    case Reason::kDeadlineInQueue:
      if (r.waited > Duration::zero()) {
        return fmt::format("deadline passed after {} ms in the queue: {}", WholeMillis(r.waited), Load(r));
      }
      return fmt::format("deadline passed {} ms before admission", WholeMillis(-r.allowed));
    case Reason::kDeadlineUnreachable:
    case Reason::kTtftUnreachable:
      if (r.waited > Duration::zero()) {
        return fmt::format("its first token was wanted by now, after {} ms in the queue: {}", WholeMillis(r.waited),
                           Load(r));
      }
      return fmt::format("{} predicted in {} ms, {} ms are left: {}",
                         r.reason == Reason::kTtftUnreachable ? "first token" : "end", WholeMillis(r.predicted),
                         WholeMillis(r.allowed), Load(r));
    case Reason::kClientCancelled:
      return fmt::format("the client left after {} ms in the queue", WholeMillis(r.waited));
    default:
      return fmt::format("the server drains: no new requests, {} still run", r.running);
  }
}

bool TellsLoad(Reason reason) {
  return reason == Reason::kQueueFull || reason == Reason::kQueueTimeout || reason == Reason::kDeadlineUnreachable ||
         reason == Reason::kTtftUnreachable;
}

}  // namespace

Permit::Permit(Permit&& other) noexcept
    : admission_(std::exchange(other.admission_, nullptr)),
      class_(other.class_),
      would_refuse_(other.would_refuse_),
      max_tokens_(other.max_tokens_),
      predicted_ttft_(other.predicted_ttft_),
      queue_wait_(other.queue_wait_),
      granted_(other.granted_) {}

Permit& Permit::operator=(Permit&& other) noexcept {
  if (this != &other) {
    Settle(Outcome::kFailure);
    admission_ = std::exchange(other.admission_, nullptr);
    class_ = other.class_;
    would_refuse_ = other.would_refuse_;
    max_tokens_ = other.max_tokens_;
    predicted_ttft_ = other.predicted_ttft_;
    queue_wait_ = other.queue_wait_;
    granted_ = other.granted_;
  }
  return *this;
}

Permit::~Permit() { Settle(Outcome::kFailure); }

void Permit::Settle(Outcome outcome, int output_tokens, Duration ttft) {
  if (Admission* admission = std::exchange(admission_, nullptr))
    admission->Release(*this, outcome, output_tokens, ttft);
}

absl::Status Refusal::ToStatus() const {
  ErrorDetails details{.retry_after = retry_after};
  if (TellsLoad(reason)) {
    details.metadata = {{"running_requests", std::to_string(running)},
                        {"max_running_requests", std::to_string(max_running)},
                        {"queued_requests", std::to_string(queued)},
                        {"max_queued_requests", std::to_string(max_queued)}};
  }
  if (predicted > Duration::zero()) {
    details.metadata["predicted_ms"] = std::to_string(WholeMillis(predicted));
    details.metadata["allowed_ms"] = std::to_string(WholeMillis(allowed));
  }
  return MakeError(reason, Message(*this), std::move(details));
}

std::string ExplainAdmitted(const Permit& permit) {
  std::string text =
      fmt::format("admitted;class={};queue_ms={}", QosClassName(permit.qos_class()), WholeMillis(permit.queue_wait()));
  if (permit.would_refuse() != Reason::kOk) text += fmt::format(";dry_run={}", ReasonWord(permit.would_refuse()));
  return text;
}

std::string ExplainRejected(const absl::Status& status) { return fmt::format("rejected;reason={}", ReasonOf(status)); }

}  // namespace sluice::qos
