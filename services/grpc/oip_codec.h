// Messages of the Open Inference Protocol ↔ requests and results of Sluice. What the tensors and parameters mean:
// docs/open-inference-protocol.md.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/scheduler/token_stream.h"
#include "inference/grpc_service.pb.h"
#include "services/grpc/call_context.h"
#include "services/grpc/doors.h"
#include "services/grpc/oip_options.h"
#include "services/request.h"

namespace sluice::services {

inline constexpr char kOipVersion[] = "1";  // the only version of every model

// OK for "" and "1"; else NOT_FOUND naming both.
absl::Status CheckOipVersion(const std::string& model, const std::string& version);

// INVALID_ARGUMENT naming every violation at once; NOT_FOUND for another version. `streaming`: ModelStreamInfer.
absl::StatusOr<OipRequest> DecodeInfer(const inference::ModelInferRequest& message, bool streaming,
                                       const FieldLimits& limits);

// The request of the flow. INVALID_ARGUMENT: a value out of its range, in the native API's names (see WithOipFields).
absl::StatusOr<InferenceRequest> ToInferenceRequest(const OipRequest& decoded, const CallContext& call,
                                                    const FieldLimits& limits);

// `status` with the fields of its violations named as this protocol names them.
absl::Status WithOipFields(const absl::Status& status);

// A part of an answer, or all of it.
struct OipChunk {
  std::string text;
  std::vector<engine::TokenId> token_ids;
  const engine::GenerationSummary* summary = nullptr;  // set with the last part: finish reason and usage
};
void EncodeChunk(const OipRequest& request, const FlowInfo& info, const OipChunk& chunk,
                 inference::ModelInferResponse& response);
void EncodeEmbedding(const OipRequest& request, const FlowInfo& info, const std::vector<float>& values,
                     int prompt_tokens, inference::ModelInferResponse& response);
void SetFinalFlag(bool is_final, inference::ModelInferResponse& response);
// The last response of a request without a tensor (triton_enable_empty_final_response).
void EncodeEmptyFinal(const OipRequest& request, const FlowInfo& info, inference::ModelInferResponse& response);
// An error inside a stream: text "REASON: message", reason and gRPC code also as parameters.
void EncodeStreamError(const std::string& id, const std::string& model, const absl::Status& status, int tokens_emitted,
                       inference::ModelStreamInferResponse& response);

}  // namespace sluice::services
