// Runs one scenario from start to report: engines, targets, blocks in interleaved order, the run's file.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/engine_process.h"
#include "loadtest/scenario.h"
#include "loadtest/summary.h"

namespace sluice::loadtest {

struct SessionOptions {
  std::string scenario_text;  // kept in the run's file with the next two, so that it can be summed up again
  bool quick = false;
  std::vector<std::string> overrides;  // KEY=VALUE
  std::string out_folder;              // created
  EngineFiles files;
  std::string command_line;
  bool terminal = false;  // stderr is one: redraw the progress line
};

// Blocks until the run is over; `stop` ends it early, at any moment, and leaves a file marked partial. Writes
// out_folder/run.jsonl, and nothing there (but the logs of engines) when it fails. For the main thread: EngineProcess.
// `scenario`: those three, parsed. INVALID_ARGUMENT: what it names; UNAVAILABLE, NOT_FOUND, UNAUTHENTICATED, ...: an
// engine cannot be reached or refuses, with the reason (and the last lines of its log when the tool started it).
absl::Status RunScenario(const SessionOptions& options, Scenario scenario, const std::atomic<bool>& stop);

// Reads a run's file and sums it up. Also gives the scenario that the file holds.
absl::StatusOr<Summary> SummarizeFile(const std::string& run_file, Run* run, Scenario* scenario);

// The order of arms in a pair of blocks: forward, backward, forward, ... so that drift favours none.
std::vector<size_t> ArmOrder(size_t arms, int block);

}  // namespace sluice::loadtest
