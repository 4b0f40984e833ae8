// What happened to one request: a line of the run's JSONL file, which is the one source of every report.
// Times are nanoseconds on the run's clock (0 = start of the run); -1: did not happen. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::loadtest {

struct Record {
  // The plan.
  int64_t index = 0;    // unique within the run
  std::string arm;      // which engine
  int block = 0;        // arms run in interleaved blocks: the n-th of this arm and level
  int level = 0;        // step of a sweep or stress run
  bool warmup = false;  // not counted
  std::string id;       // x-request-id
  std::string tenant, user, priority_class;
  int64_t conversation = -1;
  int turn = 0;
  bool planned_cancel = false;
  bool slow_reader = false;

  // Latencies count from `scheduled`: the moment the plan said, not the moment the generator got round to it.
  int64_t scheduled_ns = -1, sent_ns = -1;
  std::vector<int64_t> token_ns;  // arrival of each message that carried text or tokens
  int64_t done_ns = -1;           // status known

  // As counted by the server; -1: it did not say.
  int64_t prompt_tokens = -1, cached_tokens = -1, output_tokens = -1;
  double server_queue_ms = -1, server_prefill_ms = -1, server_ttft_ms = -1;

  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string error;  // message of the status
  std::string finish_reason, pipeline, flags;
  std::string text;  // only when asked for

  bool ok() const { return code == absl::StatusCode::kOk; }
  int64_t first_token_ns() const { return token_ns.empty() ? -1 : token_ns.front(); }
  int64_t last_token_ns() const { return token_ns.empty() ? -1 : token_ns.back(); }
};

// Once a second, of one engine that the tool started (it cannot see into others).
struct ResourceSample {
  std::string arm;
  int64_t at_ns = 0;
  double cpu_percent = 0;  // of one core, since the last sample
  int64_t rss_bytes = 0;
  bool alive = true;
};

// One block as it was driven, and the generator's own health in it.
struct BlockSample {
  std::string arm;
  int block = 0, level = 0;
  double offered = 0;  // requests/s of an open loop, streams of a closed one
  bool open_loop = false;
  int64_t start_ns = 0, end_ns = 0;       // of the measured part
  int64_t planned = 0, started = 0;       // requests
  double lag_p50_ms = 0, lag_p99_ms = 0;  // how late its event loop woke up
  double cpu_percent = 0;                 // of one core
  std::string stopped;                    // why the block ended before its time; empty: it did not
  std::string limited;                    // why the block is client-limited; empty: it is not
};

// A fault that was injected.
struct FaultEvent {
  std::string arm, action;
  int64_t start_ns = 0, end_ns = 0;
};

// Everything a run left behind, in the order of the file.
struct Run {
  // Scenario, seed, command, machine, commits, flags, model hash, ... as flat text.
  std::map<std::string, std::string> environment;
  // What LoadScenario needs to read the scenario again.
  std::string scenario, scenario_yaml;
  bool quick = false;
  std::vector<std::string> overrides;
  std::vector<Record> records;
  std::vector<ResourceSample> resources;
  std::vector<BlockSample> blocks;
  std::vector<FaultEvent> faults;
  bool partial = true;  // no end line: interrupted
  std::string ended;    // "complete" or why not
};

}  // namespace sluice::loadtest
