// sluice-server: reads the configuration, serves until SIGTERM or SIGINT, drains, exits.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/machine_limits.h"
#include "base/strings.h"
#include "config/config_loader.h"
#include "config/qos_file.h"
#include "config/rollout_file.h"
#include "engine/llama/llama_backend.h"
#include "engine/models/gguf_probe.h"
#include "services/backends.h"
#include "services/server.h"
#include "services/server_args.h"

namespace sluice::services {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "sluice-server: %s\n", std::string(status.message()).c_str());
  return 2;
}

int ProbeModel(const ServerArgs& args) {
  if (engine::RunUnderLimits(args.probe_max_bytes, args.probe_max_seconds) != 0) return 3;
  return engine::ProbeModelMain(args.positional[0]);
}

std::vector<std::string> EnvironmentNames() {
  std::vector<std::string> names;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string_view entry(*e);
    names.emplace_back(entry.substr(0, entry.find('=')));
  }
  return names;
}

absl::StatusOr<config::RolloutFile> LoadRollouts(const std::string& path) {
  return path.empty() ? config::RolloutFile{} : config::LoadRolloutFile(path);
}

// Serves until told to stop. SIGHUP reloads flags, policies and rollouts and keeps the last good set on error.
int Serve(const ServerArgs& args, config::RuntimeConfig runtime, const sigset_t& signals) {
  const config::Environment env = [](const char* name) { return std::getenv(name); };
  const FlagFiles flag_files{.yaml = args.flags_file, .flagd = runtime.flags.flagd_file};
  auto layers = LoadFlagLayers(flag_files, env);
  if (!layers.ok()) return Fail(layers.status());
  auto qos = config::LoadQosFile(args.qos_file, /*epoch=*/1);
  if (!qos.ok()) return Fail(qos.status());
  auto rollouts = LoadRollouts(args.rollouts_file);
  if (!rollouts.ok()) return Fail(rollouts.status());
  std::atomic<int64_t> requested_grace_ns{0};  // atomic: written by a handler, read here after the signal
  ServerParts parts{.flags = *std::move(layers),
                    .flag_files = flag_files,
                    .qos = *std::move(qos),
                    .qos_file = args.qos_file,
                    .rollouts = *std::move(rollouts),
                    .rollouts_file = args.rollouts_file,
                    .make_backend = MakeBackendFactory(runtime.scheduler.max_batch_tokens),
                    .jitter_seed = static_cast<uint64_t>(SystemClock().WallNow().time_since_epoch().count()),
                    .on_drain_requested = [&requested_grace_ns](Duration grace) {
                      requested_grace_ns = grace.count();
                      kill(getpid(), SIGTERM);
                    }};
  if (!runtime.server.api_keys_file.empty()) {
    auto keys = config::LoadApiKeys(runtime.server.api_keys_file);
    if (!keys.ok()) return Fail(keys.status());
    parts.keys = *std::move(keys);
  }
  engine::GgufProbe probe(
      {.executable = std::filesystem::read_symlink("/proc/self/exe").string(), .cache_dir = runtime.probe_cache_dir});
  parts.probe = [&probe](const std::string& path) { return probe.Check(path); };
  parts.runtime = std::move(runtime);

  SystemClock clock;
  auto server = Server::Start(std::move(parts), clock);
  if (!server.ok()) return Fail(server.status());
  // A storm of SIGHUP is a look every 50 ms, like one of writes (FileWatch): reading costs milliseconds of CPU that
  // requests want. Those that come meanwhile stay pending, as one.
  constexpr timespec kSettle{.tv_sec = 0, .tv_nsec = 50'000'000};
  sigset_t ends = signals;
  sigdelset(&ends, SIGHUP);
  int signal = 0;
  do {
    sigwait(&signals, &signal);
    if (signal != SIGHUP) break;
    (void)(*server)->ReloadFlags(LoadFlagFiles(flag_files), "SIGHUP");  // errors are logged and counted
    (void)(*server)->ReloadQos(config::LoadQosFile(args.qos_file, /*epoch=*/1), "SIGHUP");
    (void)(*server)->ReloadRollouts(LoadRollouts(args.rollouts_file), "SIGHUP");
  } while (sigtimedwait(&ends, nullptr, &kSettle) <= 0);
  (*server)->Drain(Duration(requested_grace_ns.load()));
  return 0;
}

// What Serve would read, but for keys' and models' files.
int CheckFiles(const ServerArgs& args, const config::RuntimeConfig& runtime) {
  const FlagFiles flag_files{.yaml = args.flags_file, .flagd = runtime.flags.flagd_file};
  const auto layers = LoadFlagLayers(flag_files, [](const char* name) { return std::getenv(name); });
  const absl::Status flags =
      layers.ok() ? flags::FlagSet::Create(flags::MergeLayers(*layers), /*epoch=*/1).status() : layers.status();
  for (const absl::Status& status :
       {flags, config::LoadQosFile(args.qos_file, /*epoch=*/1).status(), LoadRollouts(args.rollouts_file).status()}) {
    if (!status.ok()) return Fail(status);
  }
  std::puts("configuration ok");
  return 0;
}

int Main(int argc, char** argv) {
  auto args = ParseServerArgs({argv + 1, argv + argc});
  if (!args.ok()) return Fail(args.status());
  // This option came later than the others: a command line without it still starts where there is no such file.
  if (args->rollouts_file.empty() && std::filesystem::exists(kDefaultRollouts)) args->rollouts_file = kDefaultRollouts;
  switch (args->command) {
    case ServerCommand::kHelp:
      std::fputs(ServerHelp(), stdout);
      return 0;
    case ServerCommand::kProbeModel:
      return ProbeModel(*args);
    case ServerCommand::kQuantize: {
      const absl::Status status = engine::QuantizeToQ8(args->positional[0], args->positional[1], UsableCpus());
      return status.ok() ? 0 : Fail(status);
    }
    case ServerCommand::kCheck:
    case ServerCommand::kServe:
      break;
  }
  // Blocked in every thread, so that sigwait alone receives them. A reader that left must not kill us.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  auto runtime = config::LoadRuntimeConfig(
      args->config_file, [](const char* name) { return std::getenv(name); }, EnvironmentNames(), args->models);
  if (!runtime.ok()) return Fail(runtime.status());
  ApplyArgs(*args, *runtime);
  if (const absl::Status status = config::ValidateRuntime(*runtime); !status.ok()) return Fail(status);
  InitLogging(runtime->log.format, runtime->log.level);
  engine::InitLlamaRuntime();
  if (args->command == ServerCommand::kCheck) return CheckFiles(*args, *runtime);
  return Serve(*args, *std::move(runtime), signals);
}

}  // namespace
}  // namespace sluice::services

int main(int argc, char** argv) { return sluice::services::Main(argc, argv); }
