#include "loadtest/runner.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "base/machine_limits.h"
#include "fmt/format.h"
#include "loadtest/arrivals.h"
#include "loadtest/statistics.h"

namespace sluice::loadtest {
namespace {

constexpr int kErrorsBeforeGivingUp = 20;
constexpr Duration kPauseAfterFailure = std::chrono::milliseconds(100);
constexpr Duration kProgressInterval = std::chrono::milliseconds(500);
constexpr Duration kSampleInterval = std::chrono::seconds(1);

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

struct Runner::State {
  const Block& block;
  Target& target;
  const BlockHooks& hooks;
  Workload workload;
  BlockSample sample;
  MonoTime begin, measure_from, measure_to;  // warm-up is [begin, measure_from)
  std::vector<Duration> arrivals;            // open loop, from `begin`; warm-up first
  size_t next_arrival = 0;
  int64_t measured_started = 0, failures = 0;
  int64_t waiting = 0;  // turns and streams that a timer starts: the block waits for them, an interrupted one does not
  Progress progress;
  bool no_more = false;  // nothing new is started
  double cpu_at_start = 0;
  MonoTime last_progress;
};

Runner::Runner(const Scenario& scenario, const std::vector<GivenPrompt>& prompts, EventLoop& loop, const Clock& clock,
               MonoTime epoch, RunWriter& writer, const std::atomic<bool>& stop)
    : scenario_(scenario), prompts_(prompts), loop_(loop), clock_(clock), epoch_(epoch), writer_(writer), stop_(stop) {}

void Runner::StartRequest(State& s, Planned planned, MonoTime scheduled, bool warmup) {
  auto record = std::make_shared<Record>();
  record->index = next_index_++;
  record->arm = s.block.arm;
  record->block = s.block.block;
  record->level = s.block.level;
  record->warmup = warmup;
  record->id = planned.request.id;
  record->tenant = planned.request.tenant;
  record->user = planned.request.user;
  record->priority_class = planned.request.priority_class;
  record->conversation = planned.conversation;
  record->turn = planned.turn;
  record->planned_cancel = planned.request.cancel_after_messages > 0;
  record->slow_reader = planned.request.read_delay.count() > 0;
  record->scheduled_ns = (scheduled - epoch_).count();
  record->token_ns.reserve(static_cast<size_t>(planned.request.max_tokens));
  if (!warmup) ++s.measured_started;
  ++s.progress.started;
  if (++s.progress.in_flight > scenario_.limits.max_in_flight) {
    s.sample.limited =
        fmt::format("more than {} requests in flight (limits.max_in_flight)", scenario_.limits.max_in_flight);
    s.no_more = true;
  }
  Record* const raw = record.get();
  Request request = planned.request;
  // `done` comes from the target's threads; what follows happens on the loop.
  s.target.Start(
      std::move(request), raw, [this, &s, planned = std::move(planned), record = std::move(record)]() mutable {
        loop_.Post(
            [this, &s, planned = std::move(planned), record = std::move(record)] { Finished(s, planned, *record); });
      });
}

void Runner::Finished(State& s, const Planned& planned, Record& record) {
  --s.progress.in_flight;
  ++s.progress.done;
  s.progress.tokens += record.output_tokens > 0 ? record.output_tokens : static_cast<int64_t>(record.token_ns.size());
  const bool cancelled_as_planned = record.planned_cancel && record.code == absl::StatusCode::kCancelled;
  const bool failed = !record.ok() && !cancelled_as_planned;
  if (failed) {
    ++s.failures;
    ++s.progress.failed;
    const double share = static_cast<double>(s.failures) / static_cast<double>(s.progress.done);
    if (s.failures >= kErrorsBeforeGivingUp && share > scenario_.limits.max_error_rate && !s.no_more) {
      s.no_more = true;
      s.sample.stopped = fmt::format("{} of {} requests failed (limits.max_error_rate), the last with {}: {}",
                                     s.failures, s.progress.done, absl::StatusCodeToString(record.code), record.error);
    }
  }
  const MonoTime done = epoch_ + Duration(record.done_ns);
  const std::string answer = std::move(record.text);
  record.text = scenario_.workload.turns.mean > 1 ? "" : answer;
  writer_.Add(record);
  const bool over = s.no_more || stop_.load(std::memory_order_relaxed);
  if (record.ok() && planned.turn + 1 < planned.turns && !over) {
    const MonoTime when = done + scenario_.workload.think_time;
    ++s.waiting;
    loop_.At(when, [this, &s, planned, answer, when] {
      --s.waiting;
      if (stop_.load(std::memory_order_relaxed)) return;
      StartRequest(s, s.workload.NextTurn(planned, answer), when, when < s.measure_from);
    });
    return;
  }
  if (s.sample.open_loop || over) return;
  if (!failed) return StartClosed(s, done);
  // A server that refuses at once must not be hammered in a circle.
  const MonoTime when = done + kPauseAfterFailure;
  ++s.waiting;
  loop_.At(when, [this, &s, when] {
    --s.waiting;
    if (!stop_.load(std::memory_order_relaxed)) StartClosed(s, when);
  });
}

// The next request of a stream that has been free since `free`.
void Runner::StartClosed(State& s, MonoTime free) {
  const bool warmup = free < s.measure_from;
  const int64_t wanted = scenario_.load.requests;
  if (wanted > 0 ? s.measured_started >= wanted : free >= s.measure_to) {
    s.no_more = true;
    return;
  }
  StartRequest(s, s.workload.Next(), free, warmup);
}

void Runner::ScheduleOpen(State& s) {
  if (s.next_arrival == s.arrivals.size() || s.no_more) {
    s.no_more = true;
    return;
  }
  const MonoTime when = s.begin + s.arrivals[s.next_arrival++];
  loop_.At(when, [this, &s, when] {
    if (s.no_more) return;
    StartRequest(s, s.workload.Next(), when, when < s.measure_from);
    ScheduleOpen(s);
  });
}

// Progress and resource samples; asked by the loop at least every 10 ms.
void Runner::Report(State& s) {
  const MonoTime now = clock_.Now();
  if (s.hooks.progress && now - s.last_progress >= kProgressInterval) {
    s.last_progress = now;
    s.progress.elapsed_s = ToSeconds(now - s.begin);
    s.hooks.progress(s.progress);
  }
}

// Fixes the whole schedule before the first request: warm-up, then what is measured.
void Runner::PlanOpen(State& s) {
  const LoadSpec& load = scenario_.load;
  if (load.mode == LoadSpec::Mode::kTrace) {
    s.arrivals = s.block.trace;
    s.measure_from = s.begin;
  } else {
    LoadSpec warm = load;
    if (load.mode == LoadSpec::Mode::kRamp) warm.mode = LoadSpec::Mode::kPoisson;
    if (load.warmup.count() > 0) s.arrivals = Arrivals(warm, s.block.offered, load.warmup, 0, s.block.seed ^ 1);
    // Scaled gaps may touch the end of the warm-up; what is measured begins after it.
    for (Duration& d : s.arrivals) d = std::min(d, load.warmup - Duration(1));
    for (const Duration d : Arrivals(load, s.block.offered, load.duration, load.requests, s.block.seed)) {
      s.arrivals.push_back(load.warmup + d);
    }
  }
  s.sample.planned = s.progress.planned = static_cast<int64_t>(s.arrivals.size());
  s.progress.planned_s = s.arrivals.empty() ? 0 : ToSeconds(s.arrivals.back());
  ScheduleOpen(s);
}

void Runner::PlanClosed(State& s) {
  const LoadSpec& load = scenario_.load;
  s.progress.planned = load.requests;
  s.progress.planned_s = load.requests > 0 ? 0 : ToSeconds(load.warmup + load.duration);
  for (int i = 0; i < static_cast<int>(s.block.offered); ++i) {
    loop_.At(s.begin, [this, &s] { StartClosed(s, s.begin); });
  }
}

void Runner::SampleEverySecond(State& s) {
  if (s.hooks.sample) s.hooks.sample((clock_.Now() - epoch_).count());
  loop_.At(clock_.Now() + kSampleInterval, [this, &s] { SampleEverySecond(s); });
}

// How the generator did, and whether that was good enough.
void Runner::Conclude(State& s) {
  BlockSample& b = s.sample;
  b.start_ns = (s.measure_from - epoch_).count();
  b.end_ns = (clock_.Now() - epoch_).count();
  b.started = s.progress.started;
  if (!b.open_loop) b.planned = b.started;
  std::vector<double> lags = loop_.TakeLags();
  std::sort(lags.begin(), lags.end());
  if (!lags.empty()) {  // a very short block has no timer that could be late
    b.lag_p50_ms = Percentile(lags, 0.5);
    b.lag_p99_ms = Percentile(lags, 0.99);
  }
  const double wall = 1e-9 * static_cast<double>(b.end_ns - b.start_ns);
  b.cpu_percent = wall > 0 ? 100 * (OwnCpuSeconds() - s.cpu_at_start) / wall : 0;
  const LimitSpec& limits = scenario_.limits;
  const double allowed_cpu = limits.generator_cpu * UsableCpus();
  if (b.limited.empty() && b.lag_p99_ms > limits.lag_ms) {
    b.limited = fmt::format("the generator was {:.1f} ms late at p99 (limits.lag_ms {})", b.lag_p99_ms, limits.lag_ms);
  }
  if (b.limited.empty() && b.cpu_percent > allowed_cpu) {
    b.limited = fmt::format("the generator used {:.0f} % CPU of {:.0f} % (limits.generator_cpu × cores)", b.cpu_percent,
                            allowed_cpu);
  }
}

BlockSample Runner::Run(const Block& block, Target& target, const BlockHooks& hooks) {
  const LoadSpec& load = scenario_.load;
  const MonoTime begin = clock_.Now() + std::chrono::milliseconds(5);
  State s{.block = block,
          .target = target,
          .hooks = hooks,
          .workload = Workload(scenario_.workload, prompts_, block.seed,
                               fmt::format("{}-{}-{}-{:x}", block.arm, block.level, block.block, block.seed & 0xFFFF)),
          .begin = begin,
          .measure_from = begin + load.warmup,
          .measure_to = begin + load.warmup + load.duration,
          .last_progress = begin};
  s.sample = {.arm = block.arm,
              .block = block.block,
              .level = block.level,
              .offered = block.offered,
              .open_loop = load.mode != LoadSpec::Mode::kClosed};
  loop_.TakeLags();
  s.sample.open_loop ? PlanOpen(s) : PlanClosed(s);
  for (const auto& [offset, work] : hooks.timed) loop_.At(s.measure_from + offset, work);
  loop_.At(s.measure_from, [this, &s] {  // the warm-up is not counted, nor is what it cost to connect
    s.cpu_at_start = OwnCpuSeconds();
    loop_.TakeLags();
  });
  SampleEverySecond(s);

  bool cancelled = false;
  loop_.Run([&] {
    Report(s);
    const bool stopped = stop_.load(std::memory_order_relaxed);
    if (stopped && !cancelled) {
      cancelled = true;
      s.no_more = true;
      target.CancelAll();
    }
    return s.no_more && s.progress.in_flight == 0 && (s.waiting == 0 || stopped);
  });
  loop_.Clear();
  Conclude(s);
  writer_.Add(s.sample);
  return s.sample;
}

}  // namespace sluice::loadtest
