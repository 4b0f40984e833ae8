#include "qos/admission.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "qos/admission_metrics.h"
#include "qos/class_queue.h"
#include "qos/replies.h"

namespace sluice::qos {
namespace {

constexpr double kHoldSmoothing = 0.2;                      // weight of the newest permit in the moving average
constexpr Duration kUnknownHold = std::chrono::seconds(1);  // before the first permit settled
constexpr double kShareSmoothing = 0.05;
constexpr Duration kShortestRetry = std::chrono::milliseconds(100), kLongestRetry = std::chrono::seconds(30);

int UncachedPrompt(const Request& r) { return std::max(0, r.prompt_tokens - r.cached_prompt_tokens); }

void Average(std::optional<double>& mean, double value, double weight) {
  mean = mean ? *mean + weight * (value - *mean) : value;
}

}  // namespace

struct Admission::Impl {
  Impl(Admission* admission, const AdmissionOptions& o, const Clock& c, MetricsRegistry& registry)
      : self(admission), options(o), clock(c), metrics(registry), limit(o.max_concurrent) {
    caps.fill(std::numeric_limits<int>::max());
    metrics.SetLimit(limit);
  }

  // What feasibility found out about a request that is let in.
  struct Outlook {
    Duration predicted_ttft{};          // uncorrected; zero: not known
    Reason would_refuse = Reason::kOk;  // in dry_run
  };
  // Why the request may not even wait, whatever waits already.
  std::optional<Refusal> Object(const Request& request, const EngineLoad* load, MonoTime now, Outlook& outlook) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  std::optional<Refusal> Infeasible(const Request& request, const EngineLoad& load, MonoTime now,
                                    Outlook& outlook) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Why it may not wait beside those of its class.
  std::optional<Refusal> ClassFull(const Request& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // The immediate answer to a new request; nullopt: it shall wait. `others`: who made room for it.
  std::optional<Answer> Decide(const Request& request, const EngineLoad* load, MonoTime now, Outlook& outlook,
                               std::vector<Reply>& others) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  uint64_t Enqueue(const Request& request, const EngineLoad* load, MonoTime now, const Outlook& outlook,
                   Callback answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  // All of these collect their replies, to be given by Deliver after the lock is gone.
  void GrantWaiting(MonoTime now, std::vector<Reply>& replies) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Expire(MonoTime now, std::vector<Reply>& replies) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void EvictFor(QosClass newcomer, MonoTime now, std::vector<Reply>& replies) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Turn(QosClass c, uint64_t ticket, const Refusal& refusal, std::vector<Reply>& replies)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  Permit Grant(QosClass c, MonoTime since, MonoTime now, int max_tokens, const Outlook& outlook)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool Free(size_t c) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    return running < limit && running_by_class[c] < caps[c];
  }
  bool Full() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return Queued() >= options.max_queue; }
  // Waiting longer cannot help.
  MonoTime FirstTokenBy(const Request& r, MonoTime now) const {
    if (r.ttft_objective <= Duration::zero() || options.feasibility != Feasibility::kEnforce) return kInfiniteFuture;
    return SaturatingAdd(r.arrival == MonoTime{} ? now : r.arrival, r.ttft_objective);
  }
  Duration TimeoutOf(size_t c) const {
    const Duration own = options.classes[c].queue_timeout;
    return own > Duration::zero() ? own : options.queue_timeout;
  }
  MonoTime ExpiryOf(size_t c, const Waiting& waiting) const {
    return std::min({waiting.deadline, waiting.first_token_by, SaturatingAdd(waiting.since, TimeoutOf(c))});
  }
  // The refusal of a waiting request whose time is over; nullopt: it may go on waiting.
  std::optional<Refusal> Expired(QosClass c, const Waiting& waiting, MonoTime now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Refusal Refuse(Reason reason, QosClass c) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  QueueEnds Newest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Ahead AheadOf(QosClass c) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  int Queued() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Duration RetryAfter() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    return EstimateRetryAfter(hold ? FromMillis(*hold) : kUnknownHold, Queued(), limit);
  }

  Admission* const self;
  const AdmissionOptions options;
  const Clock& clock;

  mutable Mutex mu;  // protects all below; no callback runs under it
  AdmissionMetrics metrics ABSL_GUARDED_BY(mu);
  int limit ABSL_GUARDED_BY(mu);
  int running ABSL_GUARDED_BY(mu) = 0;
  std::array<int, kQosClassCount> running_by_class ABSL_GUARDED_BY(mu){}, caps ABSL_GUARDED_BY(mu);
  // Invariant: somebody waits only while the limit or the cap of its class is reached.
  std::array<ClassQueue, kQosClassCount> queues ABSL_GUARDED_BY(mu);
  uint64_t last_ticket ABSL_GUARDED_BY(mu) = 0;
  MonoTime next_expiry ABSL_GUARDED_BY(mu) = kInfiniteFuture;  // nobody who waits expires earlier
  std::optional<double> hold ABSL_GUARDED_BY(mu);              // ms that permits are held, moving average
  std::optional<double> output_share ABSL_GUARDED_BY(mu);      // of max_tokens, moving average
  std::array<TtftCorrection, kQosClassCount> corrections ABSL_GUARDED_BY(mu);
  bool draining ABSL_GUARDED_BY(mu) = false;
  Duration drain_retry_after ABSL_GUARDED_BY(mu) = Duration::zero();
};

int Admission::Impl::Queued() const {
  size_t n = 0;
  for (const ClassQueue& queue : queues) n += queue.size();
  return static_cast<int>(n);
}

Refusal Admission::Impl::Refuse(Reason reason, QosClass c) const {
  Refusal refusal{.reason = reason,
                  .qos_class = c,
                  .running = running,
                  .max_running = limit,
                  .queued = Queued(),
                  .max_queued = options.max_queue};
  if (reason == Reason::kQueueFull || reason == Reason::kQueueTimeout) refusal.retry_after = RetryAfter();
  if (reason == Reason::kDraining) refusal.retry_after = drain_retry_after;
  return refusal;
}

QueueEnds Admission::Impl::Newest() const {
  QueueEnds ends;
  for (size_t c = 0; c < queues.size(); ++c) ends[c] = queues[c].Newest();
  return ends;
}

Ahead Admission::Impl::AheadOf(QosClass c) const {
  Ahead ahead{.free_permits = limit - running};
  for (size_t i = 0; i <= static_cast<size_t>(c); ++i) {
    ahead.requests += static_cast<int>(queues[i].size());
    ahead.prompt_tokens += queues[i].prompt_tokens();
  }
  if (hold && *hold > 0) ahead.completions_per_second = 1000.0 * running / *hold;
  return ahead;
}

std::optional<Refusal> Admission::Impl::Infeasible(const Request& request, const EngineLoad& load, MonoTime now,
                                                   Outlook& outlook) const {
  const int output_tokens = output_share ? static_cast<int>(*output_share * request.max_tokens) : 0;
  std::optional<Prediction> p = Predict(load, UncachedPrompt(request), output_tokens, AheadOf(request.qos_class));
  if (!p) return std::nullopt;
  outlook.predicted_ttft = p->ttft;
  const Duration later =
      FromMillis(ToMillis(p->ttft) * (corrections[static_cast<size_t>(request.qos_class)].factor() - 1));
  p->ttft += later;
  p->finish += later;
  const std::optional<Late> late = Judge(request, *p, now, options.feasibility_tolerance);
  if (!late) return std::nullopt;
  Refusal refusal = Refuse(late->reason, request.qos_class);
  refusal.predicted = late->predicted;
  refusal.allowed = late->allowed;
  refusal.retry_after = std::clamp(late->predicted - late->allowed, kShortestRetry, kLongestRetry);
  return refusal;
}

std::optional<Refusal> Admission::Impl::Object(const Request& request, const EngineLoad* load, MonoTime now,
                                               Outlook& outlook) const {
  const QosClass c = request.qos_class;
  if (draining) return Refuse(Reason::kDraining, c);
  if (now >= request.deadline) {
    Refusal refusal = Refuse(Reason::kDeadlineInQueue, c);
    refusal.allowed = request.deadline - now;
    return refusal;
  }
  if (load == nullptr || options.feasibility == Feasibility::kOff) return std::nullopt;
  std::optional<Refusal> infeasible = Infeasible(request, *load, now, outlook);
  if (infeasible && options.feasibility == Feasibility::kDryRun) {
    outlook.would_refuse = infeasible->reason;
    return std::nullopt;
  }
  return infeasible;
}

std::optional<Refusal> Admission::Impl::ClassFull(const Request& request) const {
  const auto c = static_cast<size_t>(request.qos_class);
  const ClassQueue& queue = queues[c];
  const ClassLimits& limits = options.classes[c];
  Refusal refusal = Refuse(Reason::kQueueFull, request.qos_class);
  const auto full = [&](std::string_view unit, int64_t taken, int64_t most) {
    refusal.full = unit;
    refusal.taken = taken;
    refusal.limit = most;
    return refusal;
  };
  const auto n = static_cast<int64_t>(queue.size());
  if (n >= limits.max_queue) return full("requests", n, limits.max_queue);
  if (queue.empty()) return std::nullopt;
  if (limits.max_queued_tokens > 0 &&
      queue.tokens() + UncachedPrompt(request) + request.max_tokens > limits.max_queued_tokens) {
    return full("tokens", queue.tokens(), limits.max_queued_tokens);
  }
  const auto bytes = static_cast<int64_t>(queue.bytes());
  if (limits.max_queued_bytes > 0 && bytes + static_cast<int64_t>(request.prompt_bytes) > limits.max_queued_bytes) {
    return full("bytes", bytes, limits.max_queued_bytes);
  }
  return std::nullopt;
}

Permit Admission::Impl::Grant(QosClass c, MonoTime since, MonoTime now, int max_tokens, const Outlook& outlook) {
  ++running;
  ++running_by_class[static_cast<size_t>(c)];
  metrics.Admitted(c, now - since, running);
  return Permit(self, c, now - since, now, max_tokens, outlook.predicted_ttft, outlook.would_refuse);
}

void Admission::Impl::Turn(QosClass c, uint64_t ticket, const Refusal& refusal, std::vector<Reply>& replies) {
  ClassQueue& queue = queues[static_cast<size_t>(c)];
  replies.push_back({queue.Remove(ticket).callback, refusal});
  metrics.Refused(c, refusal.reason);
  metrics.Waiting(c, queue);
}

std::optional<Refusal> Admission::Impl::Expired(QosClass c, const Waiting& waiting, MonoTime now) const {
  const Duration timeout = TimeoutOf(static_cast<size_t>(c));
  if (now < ExpiryOf(static_cast<size_t>(c), waiting)) return std::nullopt;
  const Reason reason = now >= waiting.deadline         ? Reason::kDeadlineInQueue
                        : now >= waiting.first_token_by ? Reason::kTtftUnreachable
                                                        : Reason::kQueueTimeout;
  Refusal refusal = Refuse(reason, c);
  refusal.waited = now - waiting.since;
  refusal.allowed = timeout;
  if (reason == Reason::kTtftUnreachable) refusal.retry_after = RetryAfter();
  return refusal;
}

void Admission::Impl::GrantWaiting(MonoTime now, std::vector<Reply>& replies) {
  while (running < limit) {
    QueueEnds heads, oldest;
    for (size_t c = 0; c < queues.size(); ++c) {
      if (queues[c].empty() || !Free(c)) continue;
      heads[c] = queues[c].Head(now);
      oldest[c] = queues[c].Oldest();
    }
    const std::optional<Next> next = NextInLine(heads, oldest, now, options.starvation_after);
    if (!next) return;
    const auto [c, ticket, promoted] = *next;
    ClassQueue& queue = queues[static_cast<size_t>(c)];
    if (const auto expired = Expired(c, *queue.Find(ticket), now)) {  // Tick has not come by yet
      Turn(c, ticket, *expired, replies);
      continue;
    }
    Waiting waiting = queue.Remove(ticket);
    metrics.Waiting(c, queue);
    if (promoted) metrics.Promoted(c);
    replies.push_back({std::move(waiting.callback), Grant(c, waiting.since, now, waiting.max_tokens,
                                                          {waiting.predicted_ttft, waiting.would_refuse})});
  }
}

void Admission::Impl::Expire(MonoTime now, std::vector<Reply>& replies) {
  if (now < next_expiry) return;
  next_expiry = kInfiniteFuture;
  for (size_t i = 0; i < queues.size(); ++i) {
    const auto c = static_cast<QosClass>(i);
    for (auto it = queues[i].all().begin(); it != queues[i].all().end();) {
      const auto& [ticket, waiting] = *it++;
      if (const auto expired = Expired(c, waiting, now)) {
        Turn(c, ticket, *expired, replies);
      } else {
        next_expiry = std::min(next_expiry, ExpiryOf(i, waiting));
      }
    }
  }
}

void Admission::Impl::EvictFor(QosClass newcomer, MonoTime now, std::vector<Reply>& replies) {
  const QueueEnds newest = Newest();
  const std::optional<QosClass> victim = VictimClass(newest, newcomer, now, options.starvation_after);
  if (!victim) return;
  Refusal refusal = Refuse(Reason::kQueueFull, *victim);
  refusal.gave_way_to = newcomer;
  Turn(*victim, newest[static_cast<size_t>(*victim)]->ticket, refusal, replies);
}

std::optional<Answer> Admission::Impl::Decide(const Request& request, const EngineLoad* load, MonoTime now,
                                              Outlook& outlook, std::vector<Reply>& others) {
  const QosClass c = request.qos_class;
  std::optional<Refusal> refusal = Object(request, load, now, outlook);
  if (!refusal) {
    if (outlook.would_refuse != Reason::kOk) metrics.WouldRefuse(c, outlook.would_refuse);
    if (Free(static_cast<size_t>(c))) return Grant(c, now, now, request.max_tokens, outlook);
    if ((refusal = ClassFull(request))) Expire(now, others);
    if (refusal) refusal = ClassFull(request);
  }
  if (!refusal && Full()) Expire(now, others);
  if (!refusal && Full()) EvictFor(c, now, others);
  if (!refusal && Full()) refusal = Refuse(Reason::kQueueFull, c);
  if (!refusal) return std::nullopt;
  metrics.Refused(c, refusal->reason);
  return *refusal;
}

uint64_t Admission::Impl::Enqueue(const Request& request, const EngineLoad* load, MonoTime now, const Outlook& outlook,
                                  Callback answer) {
  const auto c = static_cast<size_t>(request.qos_class);
  const int prompt = UncachedPrompt(request);
  Waiting waiting{.since = now,
                  .deadline = request.deadline,
                  .first_token_by = FirstTokenBy(request, now),
                  .size = SizeOf(options.order, WorkOf(load, prompt, request.max_tokens)),
                  .prompt_tokens = prompt,
                  .max_tokens = request.max_tokens,
                  .bytes = request.prompt_bytes,
                  .predicted_ttft = outlook.predicted_ttft,
                  .would_refuse = outlook.would_refuse,
                  .callback = std::move(answer)};
  next_expiry = std::min(next_expiry, ExpiryOf(c, waiting));
  queues[c].Add(++last_ticket, std::move(waiting));
  metrics.Waiting(request.qos_class, queues[c]);
  return last_ticket;
}

Admission::Admission(const AdmissionOptions& options, const Clock& clock, MetricsRegistry& metrics)
    : impl_(std::make_unique<Impl>(this, options, clock, metrics)) {
  SLUICE_CHECK(options.max_concurrent >= 1 && options.max_queue >= 0 && options.min_concurrent >= 1 &&
                   options.min_concurrent <= options.max_concurrent,
               "limits of admission are positive");
}

Admission::~Admission() {
  StartDrain(Duration::zero());
  SLUICE_CHECK(running() == 0, "every permit is settled before its admission goes");
}

namespace {

Request WithDeadline(Request request, Duration default_deadline, MonoTime now) {
  if (request.deadline == kInfiniteFuture && default_deadline > Duration::zero()) {
    request.deadline = SaturatingAdd(request.arrival == MonoTime{} ? now : request.arrival, default_deadline);
    request.default_deadline = true;
  }
  return request;
}

}  // namespace

uint64_t Admission::Admit(const Request& asked, const EngineLoad* load, Callback answer) {
  std::optional<Answer> decision;
  std::vector<Reply> others;
  uint64_t ticket = 0;
  {
    MutexLock lock(impl_->mu);
    const MonoTime now = impl_->clock.Now();
    const Request request = WithDeadline(asked, impl_->options.default_deadline, now);
    Impl::Outlook outlook;
    decision = impl_->Decide(request, load, now, outlook, others);
    if (!decision) ticket = impl_->Enqueue(request, load, now, outlook, std::move(answer));
  }
  if (decision) answer(*std::move(decision));  // NOLINT(bugprone-use-after-move): decided, so it was not queued
  Deliver(impl_.get(), std::move(others));
  return ticket;
}

absl::Status Admission::Preview(const Request& asked, const EngineLoad* load) const {
  MutexLock lock(impl_->mu);
  const MonoTime now = impl_->clock.Now();
  const Request request = WithDeadline(asked, impl_->options.default_deadline, now);
  const QosClass c = request.qos_class;
  Impl::Outlook outlook;
  std::optional<Refusal> refusal = impl_->Object(request, load, now, outlook);
  if (!refusal && !impl_->Free(static_cast<size_t>(c))) {
    refusal = impl_->ClassFull(request);
    const bool evicts = VictimClass(impl_->Newest(), c, now, impl_->options.starvation_after).has_value();
    if (!refusal && impl_->Full() && !evicts) refusal = impl_->Refuse(Reason::kQueueFull, c);
  }
  return refusal ? refusal->ToStatus() : absl::OkStatus();
}

void Admission::Cancel(uint64_t ticket) {
  std::vector<Reply> replies;
  {
    MutexLock lock(impl_->mu);
    for (size_t i = 0; i < impl_->queues.size(); ++i) {
      const Waiting* waiting = impl_->queues[i].Find(ticket);
      if (waiting == nullptr) continue;
      const auto c = static_cast<QosClass>(i);
      Refusal refusal = impl_->Refuse(Reason::kClientCancelled, c);
      refusal.waited = impl_->clock.Now() - waiting->since;
      impl_->Turn(c, ticket, refusal, replies);
      break;
    }
  }
  Deliver(impl_.get(), std::move(replies));
}

void Admission::Tick() {
  std::vector<Reply> replies;
  {
    MutexLock lock(impl_->mu);
    impl_->Expire(impl_->clock.Now(), replies);
  }
  Deliver(impl_.get(), std::move(replies));
}

void Admission::StartDrain(Duration retry_after) {
  std::vector<Reply> replies;
  {
    MutexLock lock(impl_->mu);
    impl_->draining = true;
    impl_->drain_retry_after = retry_after;
    for (size_t i = 0; i < impl_->queues.size(); ++i) {
      const auto c = static_cast<QosClass>(i);
      while (!impl_->queues[i].empty()) {
        impl_->Turn(c, impl_->queues[i].Oldest()->ticket, impl_->Refuse(Reason::kDraining, c), replies);
      }
    }
  }
  Deliver(impl_.get(), std::move(replies));
}

void Admission::SetConcurrency(int limit) {
  std::vector<Reply> replies;
  {
    MutexLock lock(impl_->mu);
    impl_->limit = std::clamp(limit, impl_->options.min_concurrent, impl_->options.max_concurrent);
    impl_->metrics.SetLimit(impl_->limit);
    impl_->GrantWaiting(impl_->clock.Now(), replies);
  }
  Deliver(impl_.get(), std::move(replies));
}

void Admission::SetClassCaps(const std::array<int, kQosClassCount>& caps) {
  std::vector<Reply> replies;
  {
    MutexLock lock(impl_->mu);
    impl_->caps = caps;
    impl_->GrantWaiting(impl_->clock.Now(), replies);
  }
  Deliver(impl_.get(), std::move(replies));
}

void Admission::Release(const Permit& permit, Outcome outcome, int output_tokens, Duration ttft) {
  std::vector<Reply> replies;
  {
    MutexLock lock(impl_->mu);
    const MonoTime now = impl_->clock.Now();
    Average(impl_->hold, ToMillis(now - permit.granted_), kHoldSmoothing);
    if (outcome == Outcome::kSuccess && output_tokens >= 0 && permit.max_tokens_ > 0) {
      const double share = std::min(1.0, static_cast<double>(output_tokens) / permit.max_tokens_);
      Average(impl_->output_share, share, kShareSmoothing);
    }
    // Who left before the first token, and when it would have come, says nothing; who was kept waiting in vain does.
    if (outcome == Outcome::kDeadline && ttft == Duration::zero()) ttft = now - permit.granted_ + permit.queue_wait_;
    TtftCorrection& correction = impl_->corrections[static_cast<size_t>(permit.class_)];
    correction.Learn(permit.predicted_ttft_, ttft);
    --impl_->running;
    --impl_->running_by_class[static_cast<size_t>(permit.class_)];
    impl_->GrantWaiting(now, replies);
    impl_->metrics.Settled(permit.class_, outcome, impl_->running, correction.factor());
  }
  Deliver(impl_.get(), std::move(replies));
}

Admission::Load Admission::load() const {
  MutexLock lock(impl_->mu);
  Load load{.running = impl_->running,
            .concurrency_limit = impl_->limit,
            .max_concurrent = impl_->options.max_concurrent,
            .running_by_class = impl_->running_by_class,
            .output_share = impl_->output_share};
  for (size_t c = 0; c < impl_->queues.size(); ++c) {
    load.queued[c] = static_cast<int>(impl_->queues[c].size());
    load.ttft_correction[c] = impl_->corrections[c].factor();
  }
  return load;
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
