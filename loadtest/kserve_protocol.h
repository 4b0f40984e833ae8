// The Open Inference Protocol's messages for text: docs/open-inference-protocol.md. Pure.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "inference/grpc_service.pb.h"
#include "loadtest/record.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// UNIMPLEMENTED for what the protocol cannot say.
absl::Status EncodeKserveRequest(const Request& request, const std::string& model, inference::ModelInferRequest* proto);

// Of text_output; points into `response`.
std::string_view KserveText(const inference::ModelInferResponse& response);

// What the answer's parameters count: prompt_tokens, cached_tokens, output_tokens, sluice_pipeline.
void ReadKserveUsage(const inference::ModelInferResponse& response, Record* record);

// triton_final_response.
bool IsKserveFinal(const inference::ModelInferResponse& response);

// Of error_message, with the code that sluice_code names; UNKNOWN from other servers. OK when there is no error.
absl::Status KserveError(const inference::ModelStreamInferResponse& response);

}  // namespace sluice::loadtest
