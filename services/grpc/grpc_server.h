// The gRPC listener: credentials, limits, keepalive, health, reflection, and the services of every door.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "config/server_config.h"
#include "engine/models/model_pool.h"
#include "flags/flag_gate.h"
#include "flags/flag_sources.h"
#include "qos/admission.h"
#include "qos/breaker_registry.h"
#include "services/flag_control.h"
#include "services/qos_control.h"
#include "services/request_flow.h"
#include "services/rollout_control.h"

namespace sluice::services {

// What the services call; all of it outlives the server.
struct DoorContext {
  RequestFlow& flow;
  engine::ModelPool& models;
  flags::FlagGate& gate;
  flags::FlagSources& flag_sources;
  FlagControl& flag_control;
  qos::Admission& admission;
  qos::PolicyEngine& policies;
  qos::Quotas& quotas;
  qos::DecisionLog& decisions;
  QosControl& qos_control;
  qos::BreakerRegistry& breakers;
  RolloutControl& rollout_control;
  const Clock& clock;
  std::vector<std::string> targeting_key = {};        // config::FlagOptions: headers among it are read of each call
  std::function<void(Duration grace)> request_drain;  // AdminService.Drain; zero: the configured grace
  std::function<std::string()> state;                 // "starting", "ready", "draining"
};

// Thread-safety: thread-safe.
class GrpcServer {
 public:
  // Binds and serves. UNAVAILABLE: the address cannot be bound. INVALID_ARGUMENT: certificates unreadable (says which
  // file and why).
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const config::ServerOptions& options,
                                                           std::vector<config::ApiKey> keys, DoorContext doors);
  ~GrpcServer();

  int port() const;  // 0 for a unix socket
  // grpc.health.v1 services: "" and "readiness" (SERVING only when `ready`), "liveness" (SERVING while the process
  // lives). ServerReady of the Open Inference Protocol says the same.
  void SetReady(bool ready);
  // Tells listeners for flag changes (flagd's EventStream) that this server goes: they end and look for another one.
  // Part of Shutdown; earlier when something is waited for before that.
  void EndEventStreams();
  // Calls of Sluice's own services still open (not health watchers, reflection or event streams).
  int open_streams() const;
  // Turns readiness off, waits until no call is open or `grace` passed, then closes the listener and, half a second
  // later, cancels the rest. Until then new calls are answered: admission refuses them (Admission::StartDrain), and
  // `liveness` stays SERVING. Blocks; only the first call does anything.
  void Shutdown(Duration grace);

 private:
  struct Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
