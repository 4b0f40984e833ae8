// Builders of Open Inference Protocol messages for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "inference/grpc_service.pb.h"

namespace sluice::test {

using InputTensor = inference::ModelInferRequest::InferInputTensor;

// One element of BYTES as raw contents have it.
inline std::string RawText(std::string_view text) {
  const auto length = static_cast<uint32_t>(text.size());
  std::string raw(sizeof(length), '\0');
  std::memcpy(raw.data(), &length, sizeof(length));
  return raw.append(text);
}

template <typename T>
std::string Raw(T value) {
  std::string raw(sizeof(T), '\0');
  std::memcpy(raw.data(), &value, sizeof(T));
  return raw;
}

inline InputTensor MakeTensor(std::string_view name, std::string_view datatype, std::initializer_list<int64_t> shape) {
  InputTensor tensor;
  tensor.set_name(std::string(name));
  tensor.set_datatype(std::string(datatype));
  for (const int64_t dimension : shape) tensor.add_shape(dimension);
  return tensor;
}

inline void AddRaw(inference::ModelInferRequest& message, std::string_view name, std::string_view datatype,
                   std::initializer_list<int64_t> shape, std::string raw) {
  *message.add_inputs() = MakeTensor(name, datatype, shape);
  message.add_raw_input_contents(std::move(raw));
}

inline inference::ModelInferRequest TextRequest(std::string_view text = "Hello") {
  inference::ModelInferRequest message;
  message.set_model_name("smol");
  message.set_id("7");
  AddRaw(message, "text_input", "BYTES", {1}, RawText(text));
  return message;
}

inline void AddOutput(inference::ModelInferRequest& message, const std::string& name) {
  message.add_outputs()->set_name(name);
}

inline inference::InferParameter& Parameter(inference::ModelInferRequest& message, const std::string& name) {
  return (*message.mutable_parameters())[name];
}

// "field: description" of every violation, one a line.
inline std::string Violations(const absl::Status& status) {
  std::string all;
  for (const FieldViolation& v : GetErrorDetails(status).violations) all += v.field + ": " + v.description + "\n";
  return all;
}

}  // namespace sluice::test
