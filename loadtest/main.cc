// sluice-bench: load generation and benchmarks for LLM servers. See docs/benchmarks.md.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <vector>

#include "base/args.h"
#include "fmt/format.h"
#include "loadtest/commands.h"

namespace sluice::loadtest {
namespace {

std::atomic<bool> stop{false};

// The first Ctrl-C ends the run and writes what there is; the second one ends the process.
void OnSignal(int signal) {
  if (stop.exchange(true)) _exit(128 + signal);
}

struct Entry {
  const Command& spec;
  int (*run)(const Context&, const Args&);
};

std::vector<Entry> Commands() {
  return {{LoadSpecOf(), LoadCommand},          {RunSpec(), RunCommand},         {SuiteSpec(), SuiteCommand},
          {EnginesSpec(), EnginesCommand},      {CompareSpec(), CompareCommand}, {PlotSpec(), PlotCommand},
          {ComponentsSpec(), ComponentsCommand}};
}

std::string Overview() {
  std::string text =
      "sluice-bench: load generation and benchmarks for LLM servers (gRPC, KServe v2, OpenAI).\n\n"
      "usage: sluice-bench COMMAND [options]\n\n";
  for (const Entry& e : Commands()) text += fmt::format("  {:<12} {}\n", e.spec.name, e.spec.summary);
  return text +
         "\nsluice-bench COMMAND --help explains each. Start with a server that runs:\n"
         "  sluice-bench load grpc://127.0.0.1:8001 --rate 2 --duration 20\n"
         "or let the tool start one (scripts/bench sets up what it needs):\n"
         "  scripts/bench run ttft --quick\n\n"
         "Exit codes: 0 everything reached, 1 a check was missed (or a regression), 2 the run is invalid, wrong usage "
         "or\n"
         "no baseline, 3 an engine cannot be reached.\n";
}

int Main(const Context& context, const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    std::fputs(Overview().c_str(), arguments.empty() ? stderr : stdout);
    return arguments.empty() ? kExitInvalid : kExitReached;
  }
  for (const Entry& e : Commands()) {
    if (e.spec.name != arguments[0]) continue;
    const auto args = ParseArgs(BenchProgram(), e.spec, {arguments.begin() + 1, arguments.end()});
    if (!args.ok()) {
      std::fprintf(stderr, "sluice-bench %s: %s; see sluice-bench %s --help\n", e.spec.name.c_str(),
                   std::string(args.status().message()).c_str(), e.spec.name.c_str());
      return kExitInvalid;
    }
    if (args->Has("--help")) {
      std::fputs(HelpOf(BenchProgram(), e.spec).c_str(), stdout);
      return kExitReached;
    }
    return e.run(context, *args);
  }
  std::fprintf(stderr, "sluice-bench: there is no command '%s'; see sluice-bench --help\n", arguments[0].c_str());
  return kExitInvalid;
}

}  // namespace
}  // namespace sluice::loadtest

int main(int argc, char** argv) {
  struct sigaction action {};
  action.sa_handler = sluice::loadtest::OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string command_line = "sluice-bench";
  for (const std::string& a : arguments) command_line += " " + a;
  return sluice::loadtest::Main({.stop = sluice::loadtest::stop, .command_line = command_line}, arguments);
}
