#include "services/grpc/oip_tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cstring>

#include "base/status.h"

namespace sluice::services {
namespace {

using inference::InferTensorContents;
using inference::ModelInferResponse;
using InputTensor = inference::ModelInferRequest::InferInputTensor;

static_assert(std::endian::native == std::endian::little, "raw contents are copied as they are");

constexpr size_t kLengthBytes = 4;  // before each element of BYTES

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

// The number of elements. Dimensions are compared, not multiplied: their product may overflow.
absl::StatusOr<int> CountElements(const InputTensor& tensor, int max_elements) {
  const auto& shape = tensor.shape();
  const bool ranked = shape.size() == 1 || (shape.size() == 2 && shape.Get(0) == 1);
  const int64_t count = ranked ? shape.Get(shape.size() - 1) : -1;
  if (count < 1 || count > max_elements) {
    return Invalid(fmt::format(
        "shape [{}]; wants {}", fmt::join(shape, ", "),
        max_elements == 1 ? "[1] or [1, 1]" : fmt::format("[n] or [1, n] with n from 1 to {}", max_elements)));
  }
  return static_cast<int>(count);
}

absl::StatusOr<std::vector<OipValue>> DecodeRawBytes(std::string_view raw, int count) {
  std::vector<OipValue> values;
  const size_t total = raw.size();
  for (int i = 0; i < count; ++i) {
    if (raw.size() < kLengthBytes) {
      return Invalid(
          fmt::format("element {} of {}: {} raw bytes left, its length alone takes 4", i + 1, count, raw.size()));
    }
    uint32_t length = 0;
    std::memcpy(&length, raw.data(), kLengthBytes);
    raw.remove_prefix(kLengthBytes);
    if (length > raw.size()) {
      return Invalid(fmt::format("element {} of {}: says {} bytes, {} are left of {} raw bytes", i + 1, count, length,
                                 raw.size(), total));
    }
    values.emplace_back(std::string(raw.substr(0, length)));
    raw.remove_prefix(length);
  }
  if (!raw.empty()) {
    return Invalid(fmt::format("{} raw bytes after the {} element(s) of the shape", raw.size(), count));
  }
  return values;
}

// Elements of `Wire` bytes each, widened to `Value`.
template <typename Wire, typename Value>
absl::StatusOr<std::vector<OipValue>> DecodeRawFixed(std::string_view raw, int count) {
  const size_t wanted = static_cast<size_t>(count) * sizeof(Wire);
  if (raw.size() != wanted) {
    return Invalid(fmt::format("{} raw bytes; the shape wants {}", raw.size(), wanted));
  }
  std::vector<OipValue> values;
  for (int i = 0; i < count; ++i) {
    Wire wire;
    std::memcpy(&wire, raw.data() + static_cast<size_t>(i) * sizeof(Wire), sizeof(Wire));
    values.emplace_back(static_cast<Value>(wire));
  }
  return values;
}

absl::StatusOr<std::vector<OipValue>> DecodeRaw(const InputTensor& tensor, std::string_view raw, int count) {
  const std::string& type = tensor.datatype();
  if (type == "BYTES") return DecodeRawBytes(raw, count);
  if (type == "INT32") return DecodeRawFixed<int32_t, int64_t>(raw, count);
  if (type == "UINT64") return DecodeRawFixed<uint64_t, uint64_t>(raw, count);
  if (type == "FP32") return DecodeRawFixed<float, double>(raw, count);
  auto bytes = DecodeRawFixed<uint8_t, uint64_t>(raw, count);  // BOOL
  if (!bytes.ok()) return bytes;
  for (OipValue& value : *bytes) {
    const uint64_t byte = std::get<uint64_t>(value);
    if (byte > 1) return Invalid(fmt::format("raw byte {}; a BOOL is 0 or 1", byte));
    value = byte == 1;
  }
  return bytes;
}

template <typename Value, typename Field>
absl::StatusOr<std::vector<OipValue>> CopyTyped(const Field& field, int all_fields, std::string_view name, int count) {
  if (field.size() != count || all_fields != count) {
    return Invalid(fmt::format("{} element(s) in contents.{} of {} in all; the shape wants {} there", field.size(),
                               name, all_fields, count));
  }
  std::vector<OipValue> values;
  for (const auto& element : field) values.emplace_back(static_cast<Value>(element));
  return values;
}

absl::StatusOr<std::vector<OipValue>> DecodeTyped(const InputTensor& tensor, int count) {
  const InferTensorContents& c = tensor.contents();
  const int all = c.bool_contents_size() + c.int_contents_size() + c.int64_contents_size() + c.uint_contents_size() +
                  c.uint64_contents_size() + c.fp32_contents_size() + c.fp64_contents_size() + c.bytes_contents_size();
  const std::string& type = tensor.datatype();
  if (type == "BYTES") return CopyTyped<std::string>(c.bytes_contents(), all, "bytes_contents", count);
  if (type == "INT32") return CopyTyped<int64_t>(c.int_contents(), all, "int_contents", count);
  if (type == "UINT64") return CopyTyped<uint64_t>(c.uint64_contents(), all, "uint64_contents", count);
  if (type == "FP32") return CopyTyped<double>(c.fp32_contents(), all, "fp32_contents", count);
  return CopyTyped<bool>(c.bool_contents(), all, "bool_contents", count);
}

std::string& AddOutput(std::string_view name, const char* datatype, size_t count, ModelInferResponse& response) {
  auto* output = response.add_outputs();
  output->set_name(std::string(name));
  output->set_datatype(datatype);
  output->add_shape(static_cast<int64_t>(count));
  return *response.add_raw_output_contents();
}

template <typename T>
void AppendRaw(const T* values, size_t count, std::string& raw) {
  raw.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

}  // namespace

absl::StatusOr<std::vector<OipValue>> DecodeTensor(const InputTensor& tensor, const std::string* raw,
                                                   int max_elements) {
  SLUICE_ASSIGN_OR_RETURN(const int count, CountElements(tensor, max_elements));
  return raw != nullptr ? DecodeRaw(tensor, *raw, count) : DecodeTyped(tensor, count);
}

void AddBytesOutput(std::string_view name, std::string_view value, ModelInferResponse& response) {
  std::string& raw = AddOutput(name, "BYTES", 1, response);
  const auto length = static_cast<uint32_t>(value.size());
  raw.reserve(kLengthBytes + value.size());
  AppendRaw(&length, 1, raw);
  raw.append(value);
}

void AddInt32Output(std::string_view name, const std::vector<int32_t>& values, ModelInferResponse& response) {
  AppendRaw(values.data(), values.size(), AddOutput(name, "INT32", values.size(), response));
}

void AddFp32Output(std::string_view name, const std::vector<float>& values, ModelInferResponse& response) {
  AppendRaw(values.data(), values.size(), AddOutput(name, "FP32", values.size(), response));
}

}  // namespace sluice::services
