// One Generate call: from the open stream of the flow to messages on the wire.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/statusor.h"
#include "services/grpc/call_context.h"
#include "services/request_flow.h"
#include "sluice/v1/inference.pb.h"

namespace sluice::services {

// Sends everything that waits with each write, one write at a time; while a reader is slow nothing is taken, so its
// sequence pauses in the engine. A client that leaves cancels. Frees itself after OnDone. Never blocks.
// `request` may be an error: it is sent. `call` is empty then if the guard refused.
grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(RequestFlow& flow,
                                                              absl::StatusOr<InferenceRequest> request,
                                                              bool return_token_ids, CallContext call,
                                                              grpc::CallbackServerContext& context);

}  // namespace sluice::services
