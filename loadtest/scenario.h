// A scenario: which engines, what load, which workload, what must hold. Read from YAML, keys as the fields here; every
// key, its unit and default are in docs/benchmarks.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice::loadtest {

// How long prompts or outputs are, in tokens (words of a generated text prompt: near one token each).
struct LengthSpec {
  enum class Kind { kFixed, kUniform, kNormal, kLognormal };
  Kind kind = Kind::kFixed;
  double mean = 16, stddev = 0;  // lognormal: of the length itself
  int min = 1, max = 1 << 20;    // uniform: the range; else clamps
};

struct TenantSpec {
  std::string name, priority_class;
  double weight = 1;
};

struct WorkloadSpec {
  enum class Form { kText, kChat, kTokens };
  Form form = Form::kText;
  LengthSpec prompt_tokens{.mean = 128}, output_tokens{.mean = 32};
  int shared_prefix_tokens = 0;    // of the prompt, the same for all that share
  double shared_prefix_share = 1;  // of the requests
  int shared_prefix_groups = 1;    // different prefixes
  int long_prompt_tokens = 0;      // instead, for long_prompt_share of the requests
  double long_prompt_share = 0;
  LengthSpec turns{.mean = 1};  // of a conversation (form chat); each turn repeats what was said before
  Duration think_time{0};       // from an answer to the next turn
  std::vector<TenantSpec> tenants;
  double cancel_share = 0, slow_share = 0;
  int cancel_after = 4;                                 // messages
  Duration slow_delay = std::chrono::milliseconds(50);  // after each message
  std::string prompts_file;  // one prompt a line, or JSONL with {"prompt": ..., "max_tokens": ...}; used in turn
  std::vector<std::string> prompts;  // the same, in the scenario
  double temperature = 0;
  bool ignore_eos = true;
  Duration timeout = std::chrono::seconds(60);
  int users = 0;  // different users; 0: one a request
};

// Arrivals. Open loop: fixed up front, whatever the server does. Closed loop: `concurrency` streams, one after another.
struct LoadSpec {
  enum class Mode { kClosed, kConstant, kPoisson, kGamma, kRamp, kTrace };
  Mode mode = Mode::kClosed;
  int concurrency = 1;
  double rate = 1;                               // requests/s; ramp: at its start
  double rate_end = 1;                           // ramp
  double burstiness = 1;                         // gamma's shape: 1 is Poisson, below it bursts
  std::vector<double> levels;                    // a sweep or stress run: rates (closed: streams), one after another
  int64_t requests = 0;                          // of a block; 0: by duration
  Duration duration = std::chrono::seconds(10);  // of a block's arrivals
  Duration warmup = std::chrono::seconds(2);     // before each block, with the same load; not counted
  int blocks = 5;                                // of each arm, interleaved
  std::string trace_file;                        // one arrival a line, seconds from the start
};

// One engine. Exactly one of `start` and `url` is set.
struct EngineSpec {
  std::string name;
  std::string start;                   // "sluice", "llama-server" or a path: started and stopped by the tool
  std::string url;                     // where one runs already (see TargetOptions::url)
  std::string door;                    // of a started sluice: grpc (default), kserve
  std::string model;                   // as the requests name it; empty: default
  std::string model_file;              // GGUF or synthetic:...; empty: --model-file
  std::vector<std::string> arguments;  // {port} stands for the port
  std::map<std::string, std::string> env;
  int slots = 0, slot_context = 0, threads = 0;  // KV geometry of both kinds of engine; 0: their default
  std::string token, ca_file;
  std::map<std::string, std::string> headers;
  std::string body_json;
  std::string expect_pipeline;  // every answer must have been served by it
};

struct CheckSpec {
  std::string metric;  // see ScalarOf
  std::string arm;     // empty: every arm
  std::string versus;  // an arm: the ratio to it is judged
  double at_most = 0, at_least = 0, stretch = 0;
  bool has_at_most = false, has_at_least = false, has_stretch = false;
  int line = 0;
};

struct FaultSpec {
  enum class Action { kStall, kKill, kRestart };
  Action action = Action::kStall;
  Duration at{0};      // from the start of the block
  Duration length{0};  // stall: SIGSTOP so long; kill: stays dead so long, then starts again
};

// Limits of a believable run.
struct LimitSpec {
  double lag_ms = 10;         // p99 of the generator's lateness
  double generator_cpu = 90;  // percent of the cores it may use
  int max_in_flight = 20000;
  double max_error_rate = 0.5;  // a block beyond it ends early
};

struct SloSpec {
  double ttft_ms = 0, tpot_ms = 0, e2e_ms = 0;  // 0: none
  bool any() const { return ttft_ms > 0 || tpot_ms > 0 || e2e_ms > 0; }
};

struct Scenario {
  enum class Kind { kMeasure, kStress, kRegression, kSoak, kFault };
  std::string name, description;
  Kind kind = Kind::kMeasure;
  uint64_t seed = 42;
  std::vector<EngineSpec> engines;
  WorkloadSpec workload;
  LoadSpec load;
  SloSpec slo;
  LimitSpec limits;
  std::vector<FaultSpec> faults;
  std::vector<CheckSpec> checks;
  std::vector<std::string> compare;  // scalars compared between the first arm and each other
  double tolerance = 0.10;           // regression: worse by more than this, and significantly
};

// `text` of a file named `file`. With `quick`, the map `quick:` of the file is laid over it; then `overrides`
// ("load.rate=5") over that. All faults at once, "file:line: key: what; allowed".
absl::StatusOr<Scenario> ParseScenario(const std::string& file, const std::string& text, bool quick,
                                       const std::vector<std::string>& overrides);

const char* KindName(Scenario::Kind kind);

}  // namespace sluice::loadtest
