#include "services/server_args.h"

#include <charconv>

#include "fmt/format.h"

namespace sluice::services {
namespace {

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{}; see sluice-server --help", what));
}

bool ParseNumber(const std::string& text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

absl::StatusOr<ServerArgs> ParseSubcommand(const std::vector<std::string>& a) {
  ServerArgs args;
  args.positional.assign(a.begin() + 1, a.end());
  if (a[0] == "quantize") {
    args.command = ServerCommand::kQuantize;
    if (a.size() != 3) return Bad("quantize takes two paths: FROM TO");
    return args;
  }
  args.command = ServerCommand::kProbeModel;
  if (a.size() != 4 || !ParseNumber(a[2], args.probe_max_bytes) || !ParseNumber(a[3], args.probe_max_seconds)) {
    return Bad("probe-model takes PATH MAX_MEMORY_BYTES MAX_CPU_SECONDS");
  }
  return args;
}

}  // namespace

absl::StatusOr<ServerArgs> ParseServerArgs(const std::vector<std::string>& a) {
  if (!a.empty() && (a[0] == "quantize" || a[0] == "probe-model")) return ParseSubcommand(a);
  ServerArgs args;
  for (size_t i = 0; i < a.size(); ++i) {
    std::string name = a[i];
    std::string value;
    bool has_value = false;
    if (const size_t equals = name.find('='); name.starts_with("--") && equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
      has_value = true;
    }
    if (name == "--help" || name == "-h") {
      args.command = ServerCommand::kHelp;
      return args;
    }
    if (name == "--check") {
      args.command = ServerCommand::kCheck;
      continue;
    }
    std::string* target = name == "--config"            ? &args.config_file
                          : name == "--flags"           ? &args.flags_file
                          : name == "--qos"             ? &args.qos_file
                          : name == "--rollouts"        ? &args.rollouts_file
                          : name == "--api-keys"        ? &args.api_keys_file
                          : name == "--grpc-address"    ? &args.grpc_address
                          : name == "--metrics-address" ? &args.metrics_address
                                                        : nullptr;
    if (target == nullptr && name != "--model") return Bad(fmt::format("unknown argument '{}'", a[i]));
    if (!has_value) {
      if (i + 1 == a.size()) return Bad(fmt::format("{} needs a value", name));
      value = a[++i];
    }
    if (target != nullptr) {
      *target = value;
      continue;
    }
    const size_t equals = value.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == value.size()) {
      return Bad(fmt::format("--model takes NAME=PATH, got '{}'", value));
    }
    args.models.emplace_back(value.substr(0, equals), value.substr(equals + 1));
  }
  return args;
}

void ApplyArgs(const ServerArgs& args, config::RuntimeConfig& runtime) {
  if (!args.api_keys_file.empty()) runtime.server.api_keys_file = args.api_keys_file;
  if (!args.grpc_address.empty()) runtime.server.grpc_address = args.grpc_address;
  if (!args.metrics_address.empty()) {
    runtime.server.metrics_address = args.metrics_address == "off" ? "" : args.metrics_address;
  }
}

const char* ServerHelp() {
  return R"(sluice-server: serves language models over gRPC.

usage: sluice-server [options]

  --config FILE           settings, every key explained inside (config/runtime.yaml)
  --flags FILE            feature flags (config/feature-flags.yaml); a change takes effect at once
  --qos FILE              QoS policies and quotas (config/qos-policies.yaml); a change takes effect at once
  --rollouts FILE         rollouts of flags (config/rollouts.yaml if it exists); a change takes effect at once
  --model NAME=PATH       serve this GGUF file under NAME; may be repeated, the first is the default model.
                          PATH may be 'synthetic:' for a deterministic model without a file (tests, load)
  --api-keys FILE         callers and their rights; needed to listen beyond this machine
  --grpc-address A:P      where to serve (127.0.0.1:8001), or unix:/PATH
  --metrics-address A:P   where Prometheus scrapes (127.0.0.1:8002); 'off' turns it off
  --check                 read and validate everything, then exit
  --help                  this text

Environment: SLUICE_<KEY> overrides a setting (server.grpc_address: SLUICE_SERVER_GRPC_ADDRESS); MODEL_PATH,
MAX_CONCURRENT, PRELOAD_MODEL; PHASE5_ENABLED, PHASE5_TTFT_ENABLED, PHASE5_QOS_ENABLED, PHASE5_ROLLOUT_PERCENT override
flags. The command line wins over the environment, the environment over files.

Signals: SIGTERM, SIGINT drain and exit 0; SIGHUP reloads flags, policies and rollouts.
Exit codes: 0 served and drained, 2 refused to start (the reason is on stderr).

Try it:   sluice-server --model demo=model.gguf
          sluicectl generate "The capital of France is"
)";
}

}  // namespace sluice::services
