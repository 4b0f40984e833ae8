// sluice-components: see README.md. Also the server processes of the edge benchmark (`--serve`, not for people).
#include <benchmark/benchmark.h>

#include <string_view>

#include "loadtest/components/edge_servers.h"
#include "loadtest/components/measure.h"

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--serve") return sluice::components::Serve(argv[2], argv[3]);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return sluice::components::AnyFailed() ? 1 : 0;
}
