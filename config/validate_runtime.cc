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

// "http" or "https" and an address, or nothing.
std::string_view SchemeOf(std::string_view endpoint) {
  for (const std::string_view scheme : {"http", "https"}) {
    const std::string begin = fmt::format("{}://", scheme);
    if (endpoint.starts_with(begin) && ParseAddress(endpoint.substr(begin.size())).value) return scheme;
  }
  return "";
}

void CheckPartners(std::string_view one, const std::string& one_value, std::string_view other,
                   const std::string& other_value, Faults& faults) {
  if (one_value.empty() == other_value.empty()) return;
  faults.Add(0, fmt::format("state.etcd.{}", one_value.empty() ? one : other), "is empty while its partner is set",
             fmt::format("{} and {} together, or neither", one, other));
}

void CheckState(const StateConfig& state, Faults& faults) {
  if (state.store != StateStoreKind::kEtcd) return;
  const state::EtcdOptions& etcd = state.etcd;
  if (etcd.endpoints.empty()) {
    faults.Add(0, "state.etcd.endpoints", "is empty while state.store is etcd", "http://HOST:PORT, https://HOST:PORT");
    return;
  }
  const std::string_view scheme = SchemeOf(etcd.endpoints.front());
  for (const std::string& endpoint : etcd.endpoints) {
    if (SchemeOf(endpoint).empty()) {
      faults.Add(0, "state.etcd.endpoints", fmt::format("{} is not an endpoint", Quote(endpoint)),
                 "http://HOST:PORT, https://HOST:PORT");
    } else if (SchemeOf(endpoint) != scheme) {
      faults.Add(0, "state.etcd.endpoints", fmt::format("{} is not {} as the first one is", Quote(endpoint), scheme),
                 "http for all, or https for all");
    }
  }
  CheckPartners("cert_file", etcd.certificate_file, "key_file", etcd.key_file, faults);
  CheckPartners("username", etcd.username, "password_file", etcd.password_file, faults);
  if (scheme == "http" && !(etcd.ca_file.empty() && etcd.certificate_file.empty())) {
    faults.Add(0, "state.etcd", "has files for TLS, but endpoints without it", "https://HOST:PORT");
  }
  if (etcd.prefix.size() < 3 || etcd.prefix.front() != '/' || etcd.prefix.back() != '/' ||
      !ParseName(etcd.prefix).value) {
    faults.Add(0, "state.etcd.prefix", fmt::format("{} is not a prefix", Quote(etcd.prefix)),
               "a name between slashes, such as /sluice/default/");
  }
}

}  // namespace

absl::Status ValidateRuntime(const RuntimeConfig& config) {
  Faults faults("configuration");
  CheckEdge(config.server, faults);
  CheckModels(config.models, faults);
  CheckTokens(config, faults);
  CheckState(config.state, faults);
  return faults.ToStatus();
}

}  // namespace sluice::config
