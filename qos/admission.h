// May this request run, when, and with what limits? A concurrency limit, a bounded class-ordered queue, deadlines that
// are checked and predicted. One Permit per running request; dropping it settles
// as failed, so nothing ever leaks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "qos/engine_load.h"
#include "qos/permit.h"
#include "qos/prediction.h"
#include "qos/qos_class.h"
#include "qos/queue_order.h"
#include "qos/request.h"

namespace sluice::qos {

// What of one class may wait. A single request may always wait, whatever its tokens and bytes.
struct ClassLimits {
  int max_queue = 1'000'000;                     // requests; 0: none of this class waits
  int64_t max_queued_tokens = 0;                 // uncached prompt + max_tokens; 0: no limit
  int64_t max_queued_bytes = int64_t{64} << 20;  // of prompts; 0: no limit
  Duration queue_timeout = Duration::zero();     // zero: AdmissionOptions::queue_timeout

  bool operator==(const ClassLimits&) const = default;
};

// Is work refused at once that cannot be done in time? kDryRun: it runs, and is told apart (Permit::would_refuse).
enum class Feasibility { kOff, kDryRun, kEnforce };

struct AdmissionOptions {
  int max_concurrent = 100;                           // permits at the same time, at most
  int min_concurrent = 1;                             // SetConcurrency never goes below
  int max_queue = 256;                                // waiting requests, all classes together; 0: nothing waits
  Duration queue_timeout = std::chrono::seconds(30);  // longest wait; then RESOURCE_EXHAUSTED (QUEUE_TIMEOUT)
  Duration starvation_after =
      std::chrono::seconds(5);  // waiting this long is promoted by one class (repeatedly); zero: never
  Duration default_deadline = std::chrono::seconds(30);  // for requests without one (requestTimeout); zero: none
  QueueOrder order = QueueOrder::kShortestFirst;         // inside a class: see queue_order.h
  Feasibility feasibility = Feasibility::kEnforce;
  double feasibility_tolerance = 1.25;  // refused when predicted > tolerance × allowed: predictions err, work is dear
  std::array<ClassLimits, kQosClassCount> classes{};
};

// Thread-safety: thread-safe; one short lock. Bounded by AdmissionOptions. Callbacks run without any lock held, on the
// caller's thread (immediate answer), or on the thread that settled a permit, called Tick, Cancel, StartDrain,
// SetConcurrency, SetClassCaps, or whose Admit took the place of a less urgent request. A callback may settle its
// permit or call Admission: what that answers to *other* requests follows after the callback has returned.
class Admission {
 public:
  using Callback = AdmissionCallback;

  // Metrics: sluice_qos_admissions_total{class,outcome} ("admitted" or the reason), sluice_qos_running,
  // sluice_qos_concurrency_limit, sluice_qos_queued{class}, sluice_qos_queued_tokens{class},
  // sluice_qos_queue_wait_seconds{class} (of the admitted), sluice_qos_settlements_total{class,outcome},
  // sluice_qos_promotions_total{class}, sluice_qos_ttft_correction{class}, sluice_qos_would_refuse_total{class,outcome}
  // (feasibility in dry_run).
  Admission(const AdmissionOptions& options, const Clock& clock, MetricsRegistry& metrics);
  // Answers what still waits with DRAINING. Requires: every permit is settled.
  ~Admission();

  // Answers exactly once: a Permit, or RESOURCE_EXHAUSTED (QUEUE_FULL, QUEUE_TIMEOUT, DEADLINE_UNREACHABLE,
  // TTFT_UNREACHABLE; all with retry_after), DEADLINE_EXCEEDED (DEADLINE_IN_QUEUE), CANCELLED (CLIENT_CANCELLED),
  // UNAVAILABLE (DRAINING, with retry_after). `load`: of the engine that shall serve it; null: nothing is
  // predicted. What the engine cannot do in time by its own measurements is refused before it waits:
  // - the first token after the ttft objective or after the deadline, whoever set that;
  // - the end after a deadline that the client chose, for an answer of mean length. How much of max_tokens answers take
  //   is learnt from settled permits; as long as nobody told, only the first token counts.
  // A full queue evicts its least urgent request (QUEUE_FULL) for a more urgent newcomer, else refuses the newcomer; a
  // full class refuses its newcomers. Returns a ticket for Cancel; 0 when already answered.
  uint64_t Admit(const Request& request, const EngineLoad* load, Callback answer);

  // What Admit would answer now: OK when it would be let in or wait. Changes and counts nothing.
  absl::Status Preview(const Request& request, const EngineLoad* load) const;

  // The client left: answers CANCELLED if it still waits.
  void Cancel(uint64_t ticket);

  // Expires what waited too long. Call every few milliseconds.
  void Tick();

  // From now on refuse everything new and everything that waits, with DRAINING.
  void StartDrain(Duration retry_after);

  // Moves the limit, within min_concurrent and max_concurrent. Lowering it revokes no permit: new ones wait until
  // enough are settled.
  void SetConcurrency(int limit);

  // How many of each class may run at once, below the limit of all; what is above its cap waits. At least 0; the
  // start value is no cap.
  void SetClassCaps(const std::array<int, kQosClassCount>& caps);

  struct Load {
    int running = 0, concurrency_limit = 0, max_concurrent = 0;
    std::array<int, kQosClassCount> queued{}, running_by_class{};
    std::optional<double> output_share;  // of max_tokens that answers took lately; nullopt: nobody told
    std::array<double, kQosClassCount> ttft_correction{};  // by which predictions of the first token are multiplied
  };
  Load load() const;
  int running() const;
  int queued() const;

 private:
  friend class Permit;
  void Release(const Permit& permit, Outcome outcome, int output_tokens, Duration ttft);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
