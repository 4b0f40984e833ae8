#include "qos/admission.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "base/status.h"
#include "fmt/format.h"
#include "qos/queue_order.h"

namespace sluice::qos {
namespace {

// How one Admit ended.
enum Verdict { kAdmitted, kQueueFull, kQueueTimeout, kDeadlineInQueue, kClientCancelled, kDraining, kVerdictCount };
constexpr std::array<Reason, kVerdictCount> kVerdictReasons = {
    Reason::kOk,      Reason::kQueueFull, Reason::kQueueTimeout, Reason::kDeadlineInQueue, Reason::kClientCancelled,
    Reason::kDraining};
std::string VerdictLabel(size_t verdict) {
  return verdict == kAdmitted ? "admitted" : std::string(ReasonWord(kVerdictReasons[verdict]));
}

constexpr std::array<std::string_view, 5> kOutcomeNames = {"success", "failure", "client_fault", "cancelled",
                                                           "deadline"};

constexpr double kHoldSmoothing = 0.2;                      // weight of the newest permit in the moving average
constexpr Duration kUnknownHold = std::chrono::seconds(1);  // before the first permit settled
constexpr double kWaitBounds[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};

int64_t WholeMillis(Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); }

struct ClassMetrics {
  std::array<Counter*, kVerdictCount> admissions;
  std::array<Counter*, kOutcomeNames.size()> settlements;
  Gauge* queued;
  Histogram* queue_wait;
};

}  // namespace

Permit::Permit(Permit&& other) noexcept
    : admission_(std::exchange(other.admission_, nullptr)),
      class_(other.class_),
      queue_wait_(other.queue_wait_),
      granted_(other.granted_) {}

Permit& Permit::operator=(Permit&& other) noexcept {
  if (this != &other) {
    Settle(Outcome::kFailure);
    admission_ = std::exchange(other.admission_, nullptr);
    class_ = other.class_;
    queue_wait_ = other.queue_wait_;
    granted_ = other.granted_;
  }
  return *this;
}

Permit::~Permit() { Settle(Outcome::kFailure); }

void Permit::Settle(Outcome outcome) {
  if (Admission* admission = std::exchange(admission_, nullptr)) admission->Release(*this, outcome);
}

std::string ExplainAdmitted(const Permit& permit) {
  return fmt::format("admitted;class={};queue_ms={}", QosClassName(permit.qos_class()),
                     WholeMillis(permit.queue_wait()));
}

std::string ExplainRejected(const absl::Status& status) { return fmt::format("rejected;reason={}", ReasonOf(status)); }

struct Admission::Impl {
  struct Waiting {
    MonoTime since, deadline;
    Callback callback;
  };
  struct Answer {
    Callback callback;
    absl::StatusOr<Permit> result;
  };
  using Queue = std::map<uint64_t, Waiting>;  // by ticket, so in order of arrival

  Impl(Admission* admission, const AdmissionOptions& o, const Clock& c, MetricsRegistry& registry);

  // The immediate answer to a new request; nullopt: it shall wait. `others`: who made room for it.
  std::optional<absl::StatusOr<Permit>> Decide(const AdmissionRequest& request, MonoTime now,
                                               std::vector<Answer>& others) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // All of these collect their answers, to be given by Deliver after the lock is gone.
  void Take(Queue& queue, Queue::iterator it, absl::StatusOr<Permit> result, std::vector<Answer>& answers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void GrantWaiting(MonoTime now, std::vector<Answer>& answers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Expire(MonoTime now, std::vector<Answer>& answers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void EvictFor(QosClass newcomer, MonoTime now, std::vector<Answer>& answers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void RefuseAllWaiting(std::vector<Answer>& answers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Deliver(std::vector<Answer> answers) ABSL_LOCKS_EXCLUDED(mu);

  Permit Grant(QosClass c, MonoTime since, MonoTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  MonoTime ExpiryOf(const Waiting& waiting) const {
    return std::min(waiting.deadline, SaturatingAdd(waiting.since, options.queue_timeout));
  }
  // The refusal of a waiting request whose time is over; nullopt: it may go on waiting.
  std::optional<absl::Status> Expired(QosClass c, const Waiting& waiting, MonoTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::Status Refuse(QosClass c, Verdict verdict, std::string message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  int Queued() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  std::string Load() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  Admission* const self;
  const AdmissionOptions options;
  const Clock& clock;
  std::array<ClassMetrics, kQosClassCount> metrics;
  Gauge* running_gauge;

  Mutex mu;  // protects all below; no callback runs under it
  int running ABSL_GUARDED_BY(mu) = 0;
  // Invariant: somebody waits only while running == max_concurrent.
  std::array<Queue, kQosClassCount> queues ABSL_GUARDED_BY(mu);
  uint64_t last_ticket ABSL_GUARDED_BY(mu) = 0;
  MonoTime next_expiry ABSL_GUARDED_BY(mu) = kInfiniteFuture;  // nobody who waits expires earlier
  std::optional<Duration> hold ABSL_GUARDED_BY(mu);            // moving average of how long permits are held
  bool draining ABSL_GUARDED_BY(mu) = false;
  Duration drain_retry_after ABSL_GUARDED_BY(mu) = Duration::zero();
};

Admission::Impl::Impl(Admission* admission, const AdmissionOptions& o, const Clock& c, MetricsRegistry& registry)
    : self(admission), options(o), clock(c) {
  auto& admissions =
      registry.AddCounter("sluice_qos_admissions_total", "Answers to requests for a permit", {"class", "outcome"});
  auto& settlements = registry.AddCounter("sluice_qos_settlements_total", "Permits given back", {"class", "outcome"});
  auto& queued = registry.AddGauge("sluice_qos_queued", "Requests that wait for a permit", {"class"});
  auto& wait = registry.AddHistogram("sluice_qos_queue_wait_seconds", "Time from arrival to permit",
                                     {std::begin(kWaitBounds), std::end(kWaitBounds)}, {"class"});
  running_gauge = &registry.AddGauge("sluice_qos_running", "Permits in use").With({});
  for (int i = 0; i < kQosClassCount; ++i) {
    const std::string name(QosClassName(static_cast<QosClass>(i)));
    ClassMetrics& m = metrics[i];
    for (size_t v = 0; v < kVerdictCount; ++v) {
      m.admissions[v] = &admissions.With({name, VerdictLabel(v)});
    }
    for (size_t v = 0; v < kOutcomeNames.size(); ++v) {
      m.settlements[v] = &settlements.With({name, std::string(kOutcomeNames[v])});
    }
    m.queued = &queued.With({name});
    m.queue_wait = &wait.With({name});
  }
}

int Admission::Impl::Queued() const {
  size_t n = 0;
  for (const Queue& queue : queues) n += queue.size();
  return static_cast<int>(n);
}

std::string Admission::Impl::Load() const {
  return fmt::format("{} of {} permits in use, {} of {} queue places taken", running, options.max_concurrent, Queued(),
                     options.max_queue);
}

absl::Status Admission::Impl::Refuse(QosClass c, Verdict verdict, std::string message) {
  metrics[static_cast<size_t>(c)].admissions[verdict]->Add();
  ErrorDetails details;
  if (verdict == kQueueFull || verdict == kQueueTimeout) {
    details.retry_after = EstimateRetryAfter(hold.value_or(kUnknownHold), Queued(), options.max_concurrent);
    details.metadata = {{"running_requests", std::to_string(running)},
                        {"max_running_requests", std::to_string(options.max_concurrent)},
                        {"queued_requests", std::to_string(Queued())},
                        {"max_queued_requests", std::to_string(options.max_queue)}};
  }
  if (verdict == kDraining) details.retry_after = drain_retry_after;
  return MakeError(kVerdictReasons[verdict], message, std::move(details));
}

Permit Admission::Impl::Grant(QosClass c, MonoTime since, MonoTime now) {
  ++running;
  running_gauge->Set(running);
  metrics[static_cast<size_t>(c)].admissions[kAdmitted]->Add();
  metrics[static_cast<size_t>(c)].queue_wait->Observe(ToSeconds(now - since));
  return Permit(self, c, now - since, now);
}

void Admission::Impl::Take(Queue& queue, Queue::iterator it, absl::StatusOr<Permit> result,
                           std::vector<Answer>& answers) {
  answers.push_back({std::move(it->second.callback), std::move(result)});
  queue.erase(it);
  metrics[static_cast<size_t>(&queue - queues.data())].queued->Set(static_cast<double>(queue.size()));
}

std::optional<absl::Status> Admission::Impl::Expired(QosClass c, const Waiting& waiting, MonoTime now) {
  const int64_t waited_ms = WholeMillis(now - waiting.since);
  if (now >= waiting.deadline) {
    return Refuse(c, kDeadlineInQueue, fmt::format("deadline passed after {} ms in the queue: {}", waited_ms, Load()));
  }
  if (now - waiting.since >= options.queue_timeout) {
    return Refuse(c, kQueueTimeout,
                  fmt::format("waited {} ms in the queue, the limit is {} ms: {}", waited_ms,
                              WholeMillis(options.queue_timeout), Load()));
  }
  return std::nullopt;
}

void Admission::Impl::GrantWaiting(MonoTime now, std::vector<Answer>& answers) {
  while (running < options.max_concurrent) {
    QueueEnds oldest;
    for (size_t i = 0; i < queues.size(); ++i) {
      if (!queues[i].empty()) oldest[i] = {queues[i].begin()->second.since, queues[i].begin()->first};
    }
    const std::optional<QosClass> next = NextClass(oldest, now, options.starvation_after);
    if (!next) return;
    Queue& queue = queues[static_cast<size_t>(*next)];
    const auto it = queue.begin();
    if (auto expired = Expired(*next, it->second, now)) {  // Tick has not come by yet
      Take(queue, it, *std::move(expired), answers);
    } else {
      Take(queue, it, Grant(*next, it->second.since, now), answers);
    }
  }
}

void Admission::Impl::Expire(MonoTime now, std::vector<Answer>& answers) {
  if (now < next_expiry) return;
  next_expiry = kInfiniteFuture;
  for (size_t i = 0; i < queues.size(); ++i) {
    for (auto it = queues[i].begin(); it != queues[i].end();) {
      const auto at = it++;
      auto expired = Expired(static_cast<QosClass>(i), at->second, now);
      if (expired) {
        Take(queues[i], at, *std::move(expired), answers);
      } else {
        next_expiry = std::min(next_expiry, ExpiryOf(at->second));
      }
    }
  }
}

void Admission::Impl::EvictFor(QosClass newcomer, MonoTime now, std::vector<Answer>& answers) {
  QueueEnds newest;
  for (size_t i = 0; i < queues.size(); ++i) {
    if (!queues[i].empty()) newest[i] = {queues[i].rbegin()->second.since, queues[i].rbegin()->first};
  }
  const std::optional<QosClass> victim = VictimClass(newest, newcomer, now, options.starvation_after);
  if (!victim) return;
  Queue& queue = queues[static_cast<size_t>(*victim)];
  absl::Status refusal = Refuse(
      *victim, kQueueFull,
      fmt::format("queue full, {} request gave way to {}: {}", QosClassName(*victim), QosClassName(newcomer), Load()));
  Take(queue, std::prev(queue.end()), std::move(refusal), answers);
}

void Admission::Impl::RefuseAllWaiting(std::vector<Answer>& answers) {
  for (size_t i = 0; i < queues.size(); ++i) {
    while (!queues[i].empty()) {
      absl::Status refusal =
          Refuse(static_cast<QosClass>(i), kDraining,
                 fmt::format("the server drains: waiting requests are refused, {} still run", running));
      Take(queues[i], queues[i].begin(), std::move(refusal), answers);
    }
  }
}

// A callback that settles its permit makes answers of its own, on the same thread. They join the list that this thread
// is working through already: however many callbacks drop their permit at once, the stack stays flat.
void Admission::Impl::Deliver(std::vector<Answer> answers) {
  struct Frame {
    const Impl* owner;
    std::vector<Answer>* answers;
    Frame* outer;
  };
  thread_local Frame* innermost = nullptr;
  for (Frame* frame = innermost; frame != nullptr; frame = frame->outer) {
    if (frame->owner != this) continue;
    for (Answer& answer : answers) frame->answers->push_back(std::move(answer));
    return;
  }
  Frame frame{this, &answers, innermost};
  innermost = &frame;
  for (size_t i = 0; i < answers.size(); ++i) {
    Answer answer = std::move(answers[i]);  // the vector may grow meanwhile
    answer.callback(std::move(answer.result));
  }
  innermost = frame.outer;
}

Admission::Admission(const AdmissionOptions& options, const Clock& clock, MetricsRegistry& metrics)
    : impl_(std::make_unique<Impl>(this, options, clock, metrics)) {
  SLUICE_CHECK(options.max_concurrent >= 1 && options.max_queue >= 0, "limits of admission are positive");
}

Admission::~Admission() {
  StartDrain(Duration::zero());
  SLUICE_CHECK(running() == 0, "every permit is settled before its admission goes");
}

std::optional<absl::StatusOr<Permit>> Admission::Impl::Decide(const AdmissionRequest& request, MonoTime now,
                                                              std::vector<Answer>& others) {
  const QosClass c = request.qos_class;
  if (draining) return Refuse(c, kDraining, fmt::format("the server drains: no new requests, {} still run", running));
  if (now >= request.deadline) {
    return Refuse(c, kDeadlineInQueue,
                  fmt::format("deadline passed {} ms before admission", WholeMillis(now - request.deadline)));
  }
  if (running < options.max_concurrent) return Grant(c, now, now);
  if (Queued() >= options.max_queue) Expire(now, others);
  if (Queued() >= options.max_queue) EvictFor(c, now, others);
  if (Queued() >= options.max_queue) return Refuse(c, kQueueFull, fmt::format("queue full: {}", Load()));
  return std::nullopt;
}

uint64_t Admission::Admit(AdmissionRequest request, Callback answer) {
  std::optional<absl::StatusOr<Permit>> decision;
  std::vector<Impl::Answer> others;
  uint64_t ticket = 0;
  {
    MutexLock lock(impl_->mu);
    const MonoTime now = impl_->clock.Now();
    const Duration default_deadline = impl_->options.default_deadline;
    if (request.deadline == kInfiniteFuture && default_deadline > Duration::zero()) {
      request.deadline = SaturatingAdd(request.arrival == MonoTime{} ? now : request.arrival, default_deadline);
    }
    decision = impl_->Decide(request, now, others);
    if (!decision) {
      ticket = ++impl_->last_ticket;
      const auto c = static_cast<size_t>(request.qos_class);
      const auto [waiting, inserted] =
          impl_->queues[c].emplace(ticket, Impl::Waiting{now, request.deadline, std::move(answer)});
      impl_->next_expiry = std::min(impl_->next_expiry, impl_->ExpiryOf(waiting->second));
      impl_->metrics[c].queued->Set(static_cast<double>(impl_->queues[c].size()));
    }
  }
  if (decision) answer(*std::move(decision));  // NOLINT(bugprone-use-after-move): decided, so it was not queued
  if (!others.empty()) impl_->Deliver(std::move(others));
  return ticket;
}

void Admission::Cancel(uint64_t ticket) {
  std::vector<Impl::Answer> answers;
  {
    MutexLock lock(impl_->mu);
    for (size_t i = 0; i < impl_->queues.size(); ++i) {
      const auto it = impl_->queues[i].find(ticket);
      if (it == impl_->queues[i].end()) continue;
      const int64_t waited_ms = WholeMillis(impl_->clock.Now() - it->second.since);
      absl::Status refusal = impl_->Refuse(static_cast<QosClass>(i), kClientCancelled,
                                           fmt::format("the client left after {} ms in the queue", waited_ms));
      impl_->Take(impl_->queues[i], it, std::move(refusal), answers);
      break;
    }
  }
  impl_->Deliver(std::move(answers));
}

void Admission::Tick() {
  std::vector<Impl::Answer> answers;
  {
    MutexLock lock(impl_->mu);
    impl_->Expire(impl_->clock.Now(), answers);
  }
  impl_->Deliver(std::move(answers));
}

void Admission::StartDrain(Duration retry_after) {
  std::vector<Impl::Answer> answers;
  {
    MutexLock lock(impl_->mu);
    impl_->draining = true;
    impl_->drain_retry_after = retry_after;
    impl_->RefuseAllWaiting(answers);
  }
  impl_->Deliver(std::move(answers));
}

void Admission::Release(const Permit& permit, Outcome outcome) {
  std::vector<Impl::Answer> answers;
  {
    MutexLock lock(impl_->mu);
    const MonoTime now = impl_->clock.Now();
    const Duration held = now - permit.granted_;
    const Duration before = impl_->hold.value_or(held);
    impl_->hold = before + FromMillis(kHoldSmoothing * ToMillis(held - before));
    --impl_->running;
    impl_->GrantWaiting(now, answers);
    impl_->running_gauge->Set(impl_->running);
    impl_->metrics[static_cast<size_t>(permit.class_)].settlements[static_cast<size_t>(outcome)]->Add();
  }
  impl_->Deliver(std::move(answers));
}

int Admission::running() const {
  MutexLock lock(impl_->mu);
  return impl_->running;
}

int Admission::queued() const {
  MutexLock lock(impl_->mu);
  return impl_->Queued();
}

}  // namespace sluice::qos
