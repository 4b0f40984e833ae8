// The services that GrpcServer registers, made by one function each.
#pragma once

#include <memory>

#include "services/grpc/call_context.h"
#include "services/grpc/grpc_server.h"

namespace grpc {
class Service;
}

namespace sluice::services {

// Limits of messages that do not depend on a model; violations are INVALID_ARGUMENT with a FieldViolation each.
struct FieldLimits {
  size_t max_id_bytes = 128;  // tenant, user, conversation, request_id, model
  int max_chat_messages = 1024;
  int max_stop_strings = 16;
  size_t max_stop_bytes = 256;
  int max_embed_inputs = 256;
};

// `doors` is copied; `guard` outlives the service.
std::unique_ptr<grpc::Service> MakeInferenceService(DoorContext doors, const CallGuard& guard);
std::unique_ptr<grpc::Service> MakeAdminService(DoorContext doors, const CallGuard& guard);
std::unique_ptr<grpc::Service> MakeFlagService(DoorContext doors, const CallGuard& guard);
std::unique_ptr<grpc::Service> MakeQosService(DoorContext doors, const CallGuard& guard);
std::unique_ptr<grpc::Service> MakeRolloutService(DoorContext doors, const CallGuard& guard);
std::unique_ptr<grpc::Service> MakeOipService(DoorContext doors, const CallGuard& guard);

}  // namespace sluice::services
