// sluicectl: talk to a sluice-server from the terminal.
#include <cstdio>
#include <string>
#include <vector>

#include "base/args.h"
#include "fmt/format.h"
#include "services/cli/client.h"

namespace sluice::cli {
namespace {

struct Entry {
  const Command& spec;
  int (*run)(const Args&);
};

const Program& Sluicectl() {
  static const Program program = {
      "sluicectl",
      {{"--server", "HOST:PORT", "where sluice-server listens (127.0.0.1:8001, or $SLUICECTL_SERVER)"},
       {"--token", "TOKEN", "bearer token (or $SLUICECTL_TOKEN)"},
       {"--ca", "FILE", "trust servers signed by this PEM file, and use TLS"},
       {"--server-name", "NAME", "the name in its certificate, when --server is another one"},
       {"--cert", "FILE", "client certificate for mutual TLS, with --key"},
       {"--key", "FILE", "its private key"},
       {"--timeout", "SECONDS", "give up after this long (60)"},
       {"--json", "", "print JSON, one message a line"},
       {"--help", "", "this text"}}};
  return program;
}

std::vector<Entry> Commands() {
  return {{GenerateSpec(), GenerateCommand}, {ModelsSpec(), ModelsCommand},   {FlagsSpec(), FlagsCommand},
          {QosSpec(), QosCommand},           {RolloutSpec(), RolloutCommand}, {StatusSpec(), StatusCommand},
          {HealthSpec(), HealthCommand}};
}

std::string Overview() {
  std::string text = "sluicectl: talk to a sluice-server.\n\nusage: sluicectl COMMAND [options]\n\n";
  for (const Entry& e : Commands()) text += fmt::format("  {:<10} {}\n", e.spec.name, e.spec.summary);
  return text +
         "\nsluicectl COMMAND --help explains each. Start with:\n"
         "  sluicectl generate \"The capital of France is\"\n\n"
         "Exit codes: 0 done, 1 the server refused (the reason is on stderr), 2 wrong usage, 3 no server.\n";
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    std::fputs(Overview().c_str(), arguments.empty() ? stderr : stdout);
    return arguments.empty() ? kUsage : kOk;
  }
  for (const Entry& e : Commands()) {
    if (e.spec.name != arguments[0]) continue;
    const auto args = ParseArgs(Sluicectl(), e.spec, {arguments.begin() + 1, arguments.end()});
    if (!args.ok()) {
      std::fprintf(stderr, "sluicectl %s: %s; see sluicectl %s --help\n", e.spec.name.c_str(),
                   std::string(args.status().message()).c_str(), e.spec.name.c_str());
      return kUsage;
    }
    if (args->Has("--help")) {
      std::fputs(HelpOf(Sluicectl(), e.spec).c_str(), stdout);
      return kOk;
    }
    return e.run(*args);
  }
  std::fprintf(stderr, "sluicectl: there is no command '%s'; see sluicectl --help\n", arguments[0].c_str());
  return kUsage;
}

}  // namespace
}  // namespace sluice::cli

int main(int argc, char** argv) { return sluice::cli::Main({argv + 1, argv + argc}); }
