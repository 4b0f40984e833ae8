#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "engine/scheduler/compute_gate.h"
#include "engine/scheduler/engine_core.h"
#include "fmt/format.h"

namespace sluice::engine {
namespace {

constexpr Duration kRatesHold = std::chrono::seconds(30);  // of an idle engine
// How long a blocked engine (every stream paused) sleeps before it looks at deadlines again.
constexpr Duration kBlockedPoll = std::chrono::milliseconds(10);
constexpr Duration kRestAfter = std::chrono::milliseconds(100);  // so long the backend keeps its threads when idle
constexpr Duration kQueueFullRetry = std::chrono::seconds(1);

struct EmbedJob {
  std::vector<TokenId> tokens;
  MonoTime deadline;
  std::function<void(absl::StatusOr<std::vector<float>>)> done;
};

// Shared with the streams, which may outlive the scheduler: ringing the bell of a scheduler that is gone is harmless.
struct Doorbell {
  Mutex mu;  // leaf lock: guards the hand-over only
  CondVar rung;
  bool woken ABSL_GUARDED_BY(mu) = false;

  void Ring() ABSL_LOCKS_EXCLUDED(mu) {
    {
      MutexLock lock(mu);
      woken = true;
    }
    rung.Signal();
  }
};

absl::Status Stopping() {
  return MakeError(Reason::kModelUnloading, "the model is being unloaded", {.retry_after = std::chrono::seconds(1)});
}

}  // namespace

struct Scheduler::Impl {
  Impl(std::unique_ptr<Backend> b, const SchedulerOptions& o, const Clock& c, EngineMetrics& m, ComputeGate* g)
      : backend(std::move(b)), options(o), clock(c), gate(g), probe(m, o.model_name), core(*backend, o, c, probe) {}

  struct Arrival {
    Generation generation;
    std::shared_ptr<TokenStream> stream;
  };

  void Run();
  bool WaitForWork(EngineCore::StepResult last);  // false: stop
  void TakeInbox();
  void RunEmbeddings();
  void Publish();

  const std::unique_ptr<Backend> backend;
  const SchedulerOptions options;
  const Clock& clock;
  ComputeGate* const gate;
  SchedulerProbe probe;
  // Engine thread only, once it runs:
  EngineCore core;
  bool rested = true;  // the backend holds no threads

  const std::shared_ptr<Doorbell> bell = std::make_shared<Doorbell>();
  bool stopping ABSL_GUARDED_BY(bell->mu) = false;
  std::vector<Arrival> inbox ABSL_GUARDED_BY(bell->mu);
  std::vector<EmbedJob> embed_inbox ABSL_GUARDED_BY(bell->mu);
  SchedulerStatus status ABSL_GUARDED_BY(bell->mu);
  MonoTime last_step ABSL_GUARDED_BY(bell->mu){};

  std::thread thread;
};

Scheduler::Scheduler(std::unique_ptr<Backend> backend, const SchedulerOptions& options, const Clock& clock,
                     EngineMetrics& metrics, ComputeGate* gate)
    : impl_(std::make_unique<Impl>(std::move(backend), options, clock, metrics, gate)) {
  impl_->Publish();
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

Scheduler::~Scheduler() { Stop(); }

void Scheduler::Stop() {
  {
    MutexLock lock(impl_->bell->mu);
    impl_->stopping = true;
  }
  impl_->bell->rung.Signal();
  if (impl_->thread.joinable()) impl_->thread.join();
}

void Scheduler::Impl::Run() {
  NameThisThread(kEngineThread);
  EngineCore::StepResult last = EngineCore::StepResult::kIdle;
  while (WaitForWork(last)) {
    TakeInbox();
    if (gate != nullptr) gate->Enter();
    RunEmbeddings();
    const EngineCore::StepResult before = std::exchange(last, core.Step());
    if (last == EngineCore::StepResult::kComputed) rested = false;
    const bool idle = before == EngineCore::StepResult::kIdle && last == before;
    if (!rested && (idle || (gate != nullptr && gate->Wanted()))) {
      backend->Rest();
      rested = true;
    }
    if (gate != nullptr) gate->Leave();
    Publish();
  }
  TakeInbox();
  core.AbortAll(Stopping());
  std::vector<EmbedJob> jobs;
  {
    MutexLock lock(bell->mu);
    jobs.swap(embed_inbox);
  }
  for (EmbedJob& job : jobs) job.done(Stopping());
  Publish();
}

bool Scheduler::Impl::WaitForWork(EngineCore::StepResult last) {
  MutexLock lock(bell->mu);
  const bool computed = last == EngineCore::StepResult::kComputed;
  while (!stopping && !computed && !bell->woken && inbox.empty() && embed_inbox.empty()) {
    const bool idle = last == EngineCore::StepResult::kIdle;
    if (idle && rested) {
      bell->rung.Wait(bell->mu);
    } else if (!bell->rung.WaitFor(bell->mu, idle ? kRestAfter : kBlockedPoll)) {
      break;
    }
  }
  bell->woken = false;
  return !stopping;
}

void Scheduler::Impl::TakeInbox() {
  std::vector<Arrival> arrivals;
  {
    MutexLock lock(bell->mu);
    arrivals.swap(inbox);
  }
  for (Arrival& a : arrivals) core.Enqueue(std::move(a.generation), std::move(a.stream));
}

void Scheduler::Impl::RunEmbeddings() {
  std::vector<EmbedJob> jobs;
  {
    MutexLock lock(bell->mu);
    jobs.swap(embed_inbox);
  }
  // One a step, so that a large embedding request does not freeze running streams for long.
  for (size_t i = 1; i < jobs.size(); ++i) {
    MutexLock lock(bell->mu);
    embed_inbox.insert(embed_inbox.begin() + static_cast<ptrdiff_t>(i) - 1, std::move(jobs[i]));
  }
  if (jobs.empty()) return;
  EmbedJob& job = jobs.front();
  if (clock.Now() >= job.deadline) {
    job.done(MakeError(Reason::kDeadlineInQueue, "the deadline passed before the text was computed"));
    return;
  }
  rested = false;
  job.done(backend->Embed(job.tokens));
}

void Scheduler::Impl::Publish() {
  SchedulerStatus now = core.Status();
  probe.Publish(now);
  MutexLock lock(bell->mu);
  last_step = clock.Now();
  status = now;
}

absl::StatusOr<std::shared_ptr<TokenStream>> Scheduler::Submit(
    Generation g, std::function<void(const GenerationSummary&)> on_finish) {
  Impl& impl = *impl_;
  const int context = backend().geometry().slot_context;
  const int prompt = static_cast<int>(g.prompt.size());
  if (prompt < 1 || g.max_tokens < 1 || prompt + g.max_tokens > context) {
    return MakeError(
        Reason::kContextExceeded,
        fmt::format("{} prompt tokens and max_tokens {} need {} tokens of context; the model's slots hold {}", prompt,
                    g.max_tokens, prompt + g.max_tokens, context));
  }
  if (impl.clock.Now() >= g.deadline) {
    return MakeError(Reason::kDeadlineInQueue, "the deadline passed before the request reached the engine");
  }
  auto stream = std::make_shared<TokenStream>(impl.options.stream_buffer_tokens);
  stream->SetEngineWaker([bell = impl.bell] { bell->Ring(); });
  stream->SetFinishObserver(std::move(on_finish));
  {
    MutexLock lock(impl.bell->mu);
    if (impl.stopping) return Stopping();
    const int waiting = impl.status.waiting + static_cast<int>(impl.inbox.size());
    if (waiting >= impl.options.max_queue) {
      return MakeError(
          Reason::kQueueFull,
          fmt::format("{} requests wait for a slot of this model; at most {} may", waiting, impl.options.max_queue),
          {.retry_after = kQueueFullRetry});
    }
    impl.inbox.push_back({std::move(g), stream});
  }
  impl.bell->rung.Signal();
  return stream;
}

absl::Status Scheduler::SubmitEmbedding(std::vector<TokenId> tokens, MonoTime deadline,
                                        std::function<void(absl::StatusOr<std::vector<float>>)> done) {
  Impl& impl = *impl_;
  {
    MutexLock lock(impl.bell->mu);
    if (impl.stopping) return Stopping();
    if (static_cast<int>(impl.embed_inbox.size()) >= impl.options.max_queue) {
      return MakeError(Reason::kQueueFull, fmt::format("{} embeddings wait already", impl.embed_inbox.size()),
                       {.retry_after = kQueueFullRetry});
    }
    impl.embed_inbox.push_back({std::move(tokens), deadline, std::move(done)});
  }
  impl.bell->rung.Signal();
  return absl::OkStatus();
}

SchedulerStatus Scheduler::Status() const {
  MutexLock lock(impl_->bell->mu);
  SchedulerStatus status = impl_->status;
  const bool busy = status.running + status.waiting > 0;
  status.waiting += static_cast<int>(impl_->inbox.size());
  const Duration age = impl_->clock.Now() - impl_->last_step;
  status.last_step_age = busy ? age : Duration::zero();
  // Otherwise a rate that was measured in a bad moment could refuse everything that would correct it.
  if (!busy && age > kRatesHold) status.decode_tokens_per_second = status.prefill_tokens_per_second = 0;
  return status;
}

const Backend& Scheduler::backend() const { return *impl_->backend; }

}  // namespace sluice::engine
