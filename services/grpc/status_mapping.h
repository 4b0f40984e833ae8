// absl::Status → grpc::Status, in one place: google.rpc details for clients that read them, grpc-retry-pushback-ms for
// those that do not.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace grpc {
class CallbackServerContext;
class Status;
}  // namespace grpc

namespace sluice::services {

struct FlowInfo;

// Status with google.rpc.Status in grpc-status-details-bin: ErrorInfo{reason, domain "sluice", metadata}, RetryInfo,
// BadRequest (QuotaFailure for RESOURCE_EXHAUSTED), RequestInfo. The metadata always says retry_safe, and
// tokens_emitted when it is given: how many tokens of a generation the client got before the error (base/status.h,
// RetrySafe). Also sets the trailer grpc-retry-pushback-ms on `context` when details have retry_after (or
// "-1" for RESOURCE_EXHAUSTED and UNAVAILABLE without it).
grpc::Status ToGrpcStatus(const absl::Status& status, grpc::CallbackServerContext& context,
                          const std::string& request_id, std::optional<int> tokens_emitted = std::nullopt);

// The trailers sluice-request-id, sluice-flags, sluice-qos, sluice-pipeline, sluice-model. Call before Finish.
void AddTrailers(const FlowInfo& info, grpc::CallbackServerContext& context);

}  // namespace sluice::services
