// The whole configuration as value types. Files and keys: docs/configuration.md; every key of the shipped YAML files
// says its unit, range and default there and beside it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "engine/models/model_pool.h"
#include "engine/scheduler/scheduler.h"
#include "flags/flag_set.h"
#include "flags/layers.h"
#include "qos/admission.h"
#include "qos/circuit_breaker.h"
#include "qos/concurrency_limit.h"
#include "qos/overload.h"
#include "qos/retry_budget.h"
#include "state/etcd/etcd_options.h"

namespace sluice::config {

struct TlsOptions {
  std::string certificate_file, key_file;               // PEM; both or neither
  std::string client_ca_file;                           // set: clients must show a certificate signed by it (mTLS)
  Duration reload_interval = std::chrono::seconds(60);  // rotated files are picked up within this
  bool enabled() const { return !certificate_file.empty(); }
};

struct ServerOptions {
  std::string grpc_address = "127.0.0.1:8001";
  std::string metrics_address = "127.0.0.1:8002";  // empty: off
  bool insecure = false;                           // allow a bind beyond loopback without TLS and auth
  TlsOptions tls;
  std::string api_keys_file;  // empty: no authentication (loopback only)
  int max_message_bytes = 4 << 20;
  int max_metadata_bytes = 8 << 10;
  int max_streams_per_connection = 256;
  int max_flag_event_streams = 256;  // of flagd's EventStream, over all connections
  Duration max_connection_age = std::chrono::minutes(30);
  Duration max_connection_age_grace = std::chrono::minutes(5);
  Duration min_client_ping_interval = std::chrono::seconds(10);
  Duration drain_grace = std::chrono::seconds(30);
  Duration drain_delay = std::chrono::seconds(0);  // readiness off this long before refusing new work
};

inline constexpr std::string_view kHeaderKeyPrefix = "header:";

// Where definitions come from beside the flags file, and by what they decide.
struct FlagOptions {
  // The first that a request has is its targeting key: user, conversation, tenant, request_id, header:<name>.
  std::vector<std::string> targeting_key = {"user", "conversation", "request_id"};
  std::string flagd_file;  // definitions in flagd's JSON; empty: none
  struct Sync {            // a control plane that speaks flagd.sync.v1
    std::string target;    // HOST:PORT or unix:/PATH; empty: none
    std::string selector;
    bool tls = false;
    std::string ca_file, certificate_file, key_file;  // PEM
    Duration stale_after = std::chrono::seconds(5);
  } sync;
};

// Who keeps what replicas agree on and restarts remember.
enum class StateStoreKind { kFile, kEtcd };
struct StateConfig {
  StateStoreKind store = StateStoreKind::kFile;
  state::EtcdOptions etcd;
  Duration session_ttl = std::chrono::seconds(10);  // in etcd: how long a dead process keeps what it held
};

// Which decisions about requests are log lines of their own (`feature_flag.evaluation`).
enum class FlagEvaluations { kOff, kChanges, kAll };

struct LogOptions {
  LogFormat format = LogFormat::kText;
  LogLevel level = LogLevel::kInfo;
  FlagEvaluations flag_evaluations = FlagEvaluations::kOff;
};

struct OverloadConfig {
  bool enabled = true;
  uint64_t memory_limit_bytes = 0;  // zero: what the machine and the control group allow
  qos::OverloadOptions triggers;
};

// config/runtime.yaml with the environment applied.
struct RuntimeConfig {
  ServerOptions server;
  LogOptions log;
  engine::ModelPoolOptions models;
  engine::SchedulerOptions scheduler;
  FlagOptions flags;
  std::string state_folder;       // of the file store and of what this machine alone remembers; empty: none
  StateConfig state;              // overrides, emergency switches, rollouts
  std::string replica_id;         // among those that share a store; empty: host name and port
  std::string fault_file;         // faults injected on purpose (fault_file.h); empty: none, ever
  std::string decision_log_file;  // of QoS, to be replayed; empty: only the newest are kept, in memory
  uint64_t decision_log_max_bytes = uint64_t{64} << 20;  // then FILE becomes FILE.1
  std::string probe_cache_dir;                           // verdicts on model files; empty: memory only
  int default_max_tokens = 256;                          // when a request says none
  int max_tokens_limit = 2048;                           // streaming.maxTokens: larger requests are refused
  qos::AdmissionOptions admission;
  qos::ConcurrencyLimitOptions concurrency_limit{.enabled = false};  // its ceiling is admission.max_concurrent
  qos::BreakerOptions breaker;
  qos::RetryBudgetOptions retry_budget;
  OverloadConfig overload;
};

// One caller, by the SHA-256 of its bearer token.
struct ApiKey {
  std::string name;          // for logs
  std::string token_sha256;  // 64 lower-case hex digits
  std::string tenant;
  qos::QosClass highest_class = qos::QosClass::kInteractive;
  std::vector<std::string> models;  // allowed names; empty: all
  bool admin = false;
};

}  // namespace sluice::config
