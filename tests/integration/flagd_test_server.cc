// A whole Sluice server on the synthetic backend whose flags come from a file in flagd's JSON, for
// openfeature_client.py. Usage: flagd_test_server HOST:PORT FILE. SIGHUP reads the file again, SIGTERM drains.
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "engine/backend/synthetic_backend.h"
#include "flags/flagd/definitions.h"
#include "services/server.h"

namespace {

using sluice::engine::Backend;
using sluice::engine::ModelSpec;
using sluice::services::Server;

absl::StatusOr<sluice::flags::LayerContent> Load(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  auto definitions = sluice::flags::flagd::ParseDefinitions(text.str());
  if (!definitions.ok()) return definitions.status();
  sluice::flags::LayerContent layer{.flags = std::move(definitions->flags)};
  layer.flags.push_back({.key = "native", .enabled = true, .rollout_bps = 5000});
  return layer;
}

int Serve(const char* address, const char* path) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGHUP, SIGTERM}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  sluice::services::ServerParts parts;
  parts.runtime.server.grpc_address = address;
  parts.runtime.server.metrics_address = "";
  parts.probe = [](const std::string&) { return absl::OkStatus(); };
  parts.make_backend = [](const ModelSpec&) -> absl::StatusOr<std::unique_ptr<Backend>> {
    return std::make_unique<sluice::engine::SyntheticBackend>(sluice::engine::SyntheticOptions{}, nullptr);
  };
  auto flags = Load(path);
  const sluice::SystemClock clock;
  absl::StatusOr<std::unique_ptr<Server>> server = absl::UnknownError("the flags cannot be read");
  if (!flags.ok()) {
    server = flags.status();
  } else {
    parts.flags[sluice::flags::Layer::kFile] = *std::move(flags);
    server = Server::Start(std::move(parts), clock);
  }
  if (!server.ok()) {
    std::fprintf(stderr, "flagd_test_server: %s\n", server.status().ToString().c_str());
    return 2;
  }
  std::printf("port %d\n", (*server)->grpc_port());
  std::fflush(stdout);
  for (int signal = 0; signal != SIGTERM;) {
    sigwait(&signals, &signal);
    if (signal == SIGHUP) (void)(*server)->ReloadFlags(Load(path), "SIGHUP");
  }
  (*server)->Drain(std::chrono::seconds(5));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return argc == 3 ? Serve(argv[1], argv[2]) : 1; }
