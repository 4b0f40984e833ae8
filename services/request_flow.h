// The way of a request: gate → admit → pipeline → stream → outcome. The only place that knows all five steps.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/models/model_pool.h"
#include "engine/pipelines/pipelines.h"
#include "engine/scheduler/token_stream.h"
#include "flags/flag_gate.h"
#include "qos/breaker_registry.h"
#include "qos/qos_engine.h"
#include "services/fault_injection.h"
#include "services/request.h"
#include "services/rollout_arms.h"
#include "services/targeting_key.h"
#include "services/telemetry/request_probe.h"

namespace sluice::services {

struct FlowLimits {
  int default_max_tokens = 256;
  int max_tokens_limit = 2048;
  Duration default_deadline = std::chrono::seconds(30);  // zero: none
  bool drop_late = true;  // a prompt that misses its ttft objective is not computed any more
  TargetingKeyOrder targeting_key;
};

// What a door holds while its request runs. Thread-safe. Dropping the last reference does not cancel; Cancel does.
class FlowTicket {
 public:
  virtual ~FlowTicket() = default;
  // The client left: leaves the admission queue, or ends the stream within one engine step. Idempotent.
  virtual void Cancel() = 0;
};

struct OpenedStream {
  std::shared_ptr<engine::TokenStream> stream;       // read it to its end, or Cancel
  std::shared_ptr<const engine::LoadedModel> model;  // for pieces of tokens; drop when done
};

// Thread-safety: thread-safe; everything referenced outlives it.
class RequestFlow {
 public:
  struct Parts {
    flags::FlagGate& gate;
    qos::QosEngine& qos;
    qos::BreakerRegistry& breakers;
    engine::ModelPool& models;
    RolloutArms& arms;
    FaultInjection* faults;  // null: none
    RequestProbe& probe;
    const Clock& clock;
  };
  RequestFlow(const Parts& parts, const FlowLimits& limits);

  // Answers exactly once, inline or from another thread, without holding a lock: the open stream, or why not.
  // `info` is complete then in both cases. The outcome is settled, counted and logged when the stream finishes (or at
  // once when it never opens), whether or not anybody reads it.
  using OpenCallback = absl::AnyInvocable<void(absl::StatusOr<OpenedStream>, const FlowInfo& info)>;
  std::shared_ptr<FlowTicket> Start(InferenceRequest request, OpenCallback opened);

  // The same way for embeddings: gate, admit, engine, outcome.
  using EmbedCallback = absl::AnyInvocable<void(absl::StatusOr<std::vector<std::vector<float>>>, int prompt_tokens,
                                                const FlowInfo& info)>;
  std::shared_ptr<FlowTicket> Embed(InferenceRequest request, std::vector<std::string> inputs, EmbedCallback done);

 private:
  class Run;
  Parts parts_;
  FlowLimits limits_;
};

}  // namespace sluice::services
