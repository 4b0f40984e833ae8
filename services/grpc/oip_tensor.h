// Tensors of the Open Inference Protocol as plain values, checked byte by byte, and values as tensors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"

namespace sluice::services {

// BOOL → bool, INT32 → int64_t, UINT64 → uint64_t, FP32 → double, BYTES → string.
using OipValue = std::variant<bool, int64_t, uint64_t, double, std::string>;

// The elements of `tensor`, whose datatype must be one of the above. `raw` is its entry of raw_input_contents; null:
// its typed contents. Accepted shapes: [n] and [1, n] with 1 ≤ n ≤ `max_elements`; nothing is allocated for more.
// INVALID_ARGUMENT says what was found and what is wanted, without the tensor's name.
absl::StatusOr<std::vector<OipValue>> DecodeTensor(const inference::ModelInferRequest::InferInputTensor& tensor,
                                                   const std::string* raw, int max_elements);

// Each adds an output of shape [n] and its raw contents.
void AddBytesOutput(std::string_view name, std::string_view value, inference::ModelInferResponse& response);
void AddInt32Output(std::string_view name, const std::vector<int32_t>& values, inference::ModelInferResponse& response);
void AddFp32Output(std::string_view name, const std::vector<float>& values, inference::ModelInferResponse& response);

}  // namespace sluice::services
