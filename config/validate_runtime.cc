#include "config/config_loader.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

void CheckEdge(const ServerOptions& server, Faults& faults) {
  const TlsOptions& tls = server.tls;
  if (tls.certificate_file.empty() != tls.key_file.empty()) {
    faults.Add(0, tls.key_file.empty() ? "server.tls.key_file" : "server.tls.certificate_file",
               "is empty while its partner is set", "certificate_file and key_file together, or neither");
  }
  if (!tls.client_ca_file.empty() && !tls.enabled()) {
    faults.Add(0, "server.tls.client_ca_file", "is set without TLS", "mTLS with certificate_file and key_file as well");
  }
  if (!server.insecure && !IsLoopback(server.grpc_address) && (!tls.enabled() || server.api_keys_file.empty())) {
    faults.Add(0, "server.grpc_address",
               fmt::format("{} can be reached from other machines without {}", Quote(server.grpc_address),
                           tls.enabled()                  ? "authentication"
                           : server.api_keys_file.empty() ? "TLS and authentication"
                                                          : "TLS"),
               "a loopback address; or server.tls and server.api_keys_file; or server.insecure: true");
  }
  constexpr Duration kMostGrace = std::chrono::hours(1);
  if (server.drain_grace < Duration::zero() || server.drain_grace > kMostGrace) {
    faults.Add(0, "server.drain_grace_ms", fmt::format("{} is out of range", ToMillis(server.drain_grace)),
               "0 to 3600000");
  }
}

void CheckModels(const engine::ModelPoolOptions& pool, Faults& faults) {
  constexpr std::string_view kHow = "a GGUF file, by models[].path, the variable MODEL_PATH or --model NAME=FILE";
  if (pool.models.empty()) faults.Add(0, "models", "no model is configured", kHow);
  int64_t wanted = 0;
  for (const engine::ModelSpec& model : pool.models) {
    if (model.path.empty()) faults.Add(0, "models", fmt::format("{} has no path", Quote(model.name)), kHow);
    if (!ParseName(model.name).value) {
      faults.Add(0, "models", fmt::format("{} is not a name", Quote(model.name)),
                 "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -");
    }
    wanted += model.preload || model.pinned ? 1 : 0;
  }
  if (wanted > pool.max_models) {
    faults.Add(0, "model_cache.maxModels",
               fmt::format("{}, but {} models are preloaded or pinned", pool.max_models, wanted),
               "at least that many, or preload: false");
  }
}

void CheckTokens(const RuntimeConfig& config, Faults& faults) {
  if (config.default_max_tokens <= config.max_tokens_limit) return;
  faults.Add(0, "streaming.defaultMaxTokens", fmt::format("{} is above streaming.maxTokens", config.default_max_tokens),
             fmt::format("at most {}", config.max_tokens_limit));
}

}  // namespace

absl::Status ValidateRuntime(const RuntimeConfig& config) {
  Faults faults("configuration");
  CheckEdge(config.server, faults);
  CheckModels(config.models, faults);
  CheckTokens(config, faults);
  return faults.ToStatus();
}

}  // namespace sluice::config
