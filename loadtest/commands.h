// The commands of sluice-bench; each prints its report on stdout, progress and faults on stderr, and returns an exit
// code.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "base/args.h"

namespace sluice::loadtest {

inline constexpr int kExitReached = 0, kExitMissed = 1, kExitInvalid = 2, kExitUnreachable = 3;

struct Context {
  const std::atomic<bool>& stop;  // Ctrl-C
  std::string command_line;
};

const Program& BenchProgram();

// Says on stderr what is wrong; returns the exit code that goes with it.
int Fail(const absl::Status& status);

int LoadCommand(const Context& context, const Args& args);
int RunCommand(const Context& context, const Args& args);
int SuiteCommand(const Context& context, const Args& args);
int EnginesCommand(const Context& context, const Args& args);
int CompareCommand(const Context& context, const Args& args);
int PlotCommand(const Context& context, const Args& args);
int ComponentsCommand(const Context& context, const Args& args);
const Command& LoadSpecOf();
const Command& RunSpec();
const Command& SuiteSpec();
const Command& EnginesSpec();
const Command& CompareSpec();
const Command& PlotSpec();
const Command& ComponentsSpec();

}  // namespace sluice::loadtest
