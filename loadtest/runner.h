// Drives one block of load against one target and writes what happened. Open loops keep to their schedule whatever the
// server does; latencies count from the scheduled moment, so a stall shows in every request that it delayed
// (coordinated omission: G. Tene; wrk2). Closed loops measure each stream from the moment it was free.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/event_loop.h"
#include "loadtest/jsonl.h"
#include "loadtest/scenario.h"
#include "loadtest/target.h"
#include "loadtest/workload.h"

namespace sluice::loadtest {

// For the progress line.
struct Progress {
  int64_t started = 0, done = 0, failed = 0, in_flight = 0, tokens = 0, planned = 0;
  double elapsed_s = 0, planned_s = 0;
};

struct Block {
  std::string arm;
  int block = 0, level = 0;
  double offered = 1;           // requests/s, or streams
  std::vector<Duration> trace;  // of a trace replay
  uint64_t seed = 0;
};

// What a block does besides sending: called on the loop.
struct BlockHooks {
  std::function<void(const Progress&)> progress;                  // twice a second
  std::function<void(int64_t now_ns)> sample;                     // once a second
  std::vector<std::pair<Duration, std::function<void()>>> timed;  // from the start of the measured part
};

// Not thread-safe. Everything runs on the caller's thread and the target's own.
class Runner {
 public:
  // `stop`: becomes true on Ctrl-C. All outlive the runner.
  Runner(const Scenario& scenario, const std::vector<GivenPrompt>& prompts, EventLoop& loop, const Clock& clock,
         MonoTime epoch, RunWriter& writer, const std::atomic<bool>& stop);

  // Blocks until every request of the block has ended. The sample says how the generator did; `limited` when it was not
  // up to the load.
  BlockSample Run(const Block& block, Target& target, const BlockHooks& hooks);

 private:
  struct State;
  void StartRequest(State& s, Planned planned, MonoTime scheduled, bool warmup);
  void Finished(State& s, const Planned& planned, Record& record);
  void PlanOpen(State& s);
  void PlanClosed(State& s);
  void ScheduleOpen(State& s);
  void StartClosed(State& s, MonoTime now);
  void Report(State& s);
  void SampleEverySecond(State& s);
  void Conclude(State& s);

  const Scenario& scenario_;
  const std::vector<GivenPrompt>& prompts_;
  EventLoop& loop_;
  const Clock& clock_;
  const MonoTime epoch_;
  RunWriter& writer_;
  const std::atomic<bool>& stop_;
  int64_t next_index_ = 0;
};

}  // namespace sluice::loadtest
