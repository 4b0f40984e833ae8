// One inference request, free of any wire format: what every door (native gRPC, Open Inference Protocol, later OpenAI
// HTTP) turns its message into, and what request_flow works on.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "engine/backend/tokenizer.h"
#include "engine/sampling/sampling_params.h"
#include "qos/qos_class.h"

namespace sluice::services {

// Who calls. Unauthenticated callers (no api_keys file) may name their tenant and use every class and model.
struct Caller {
  bool authenticated = false;
  std::string key_name;  // for logs
  std::string tenant;    // of the key, when authenticated
  qos::QosClass highest_class = qos::QosClass::kSystem;
  std::vector<std::string> models;  // allowed; empty: all
  bool admin = false;
};

using PromptInput = std::variant<std::string, std::vector<engine::ChatMessage>, std::vector<engine::TokenId>>;

struct InferenceRequest {
  std::string request_id;  // never empty; the door makes one
  Caller caller;
  std::string door;   // "grpc", "oip": a log field and metric label
  std::string model;  // empty: default
  PromptInput input;
  engine::SamplingParams sampling;
  std::optional<int> max_tokens;
  std::vector<std::string> stop_strings;
  bool ignore_eos = false;
  bool truncate_prompt = false;
  qos::QosClass qos_class = qos::QosClass::kStandard;  // as asked; the flow clamps it
  std::string tenant, user, conversation;              // as asked; an authenticated caller's tenant replaces it
  std::map<std::string, std::string> headers;          // that rules of flags may look at; names in lower case
  MonoTime arrival{};
  MonoTime deadline = kInfiniteFuture;  // of the call; the flow applies the default
  int previous_attempts = 0;            // how often the client has tried this before, as it says
  Duration ttft_objective{};            // the client wants its first token within this; zero: it says nothing
};

// What was decided on the way; complete when the flow answered (also with an error). For trailers and the log.
struct FlowInfo {
  std::string request_id, model, pipeline, tenant;
  std::string flags;         // explained decisions, "; " between flags
  std::string qos;           // explained admission
  int max_tokens_limit = 0;  // a policy cut max_tokens to this; 0: none did
};

}  // namespace sluice::services
