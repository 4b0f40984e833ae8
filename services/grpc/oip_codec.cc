#include "services/grpc/oip_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "services/grpc/oip_tensor.h"
#include "services/grpc/request_codec.h"

namespace sluice::services {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using Violations = std::vector<FieldViolation>;

constexpr std::string_view kSharedMemory = "shared_memory_region";
constexpr std::string_view kOutputNames = "text_output, token_ids, finish_reason or, alone, embedding";

// Raw contents go with all inputs or with none, as in Triton.
absl::Status CheckContents(const ModelInferRequest& message) {
  const int raw = message.raw_input_contents_size();
  if (raw == 0) return absl::OkStatus();
  for (const auto& input : message.inputs()) {
    if (!input.has_contents()) continue;
    return InvalidFields(
        {{input.name(), "has contents although raw_input_contents are given; allowed is one of the two"}});
  }
  if (raw == message.inputs_size()) return absl::OkStatus();
  return InvalidFields(
      {{"raw_input_contents", fmt::format("got {}; wants one for each of the {} inputs", raw, message.inputs_size())}});
}

void ReadInputs(const ModelInferRequest& message, const FieldLimits& limits, OipOptionReader& reader,
                Violations& violations) {
  const bool raw = message.raw_input_contents_size() > 0;
  for (int i = 0; i < message.inputs_size(); ++i) {
    const auto& input = message.inputs(i);
    const std::string& field = input.name();
    const OipOption* option = FindOipOption(input.name(), kOipTensor);
    if (option == nullptr) {
      violations.push_back({field, fmt::format("no such input; allowed: {}", OipOptionNames(kOipTensor))});
    } else if (input.datatype() != option->datatype) {
      violations.push_back({field, fmt::format("datatype \"{}\"; wants {}", input.datatype(), option->datatype)});
    } else if (input.parameters().contains(std::string(kSharedMemory))) {
      violations.push_back({field, "is in shared memory, which this server does not read"});
    } else {
      const auto values = DecodeTensor(input, raw ? &message.raw_input_contents(i) : nullptr,
                                       option->list ? limits.max_stop_strings : 1);
      if (values.ok()) {
        reader.Set(*option, field, *values);
      } else {
        violations.push_back({field, std::string(values.status().message())});
      }
    }
  }
}

void ReadOutputs(const ModelInferRequest& message, bool streaming, OipRequest& request, Violations& violations) {
  request.want_text = message.outputs().empty();
  for (const auto& output : message.outputs()) {
    const std::string& name = output.name();
    bool* const wanted = name == "text_output"     ? &request.want_text
                         : name == "token_ids"     ? &request.want_token_ids
                         : name == "finish_reason" ? &request.want_finish_reason
                         : name == "embedding"     ? &request.want_embedding
                                                   : nullptr;
    if (wanted == nullptr) {
      violations.push_back({"outputs." + name, fmt::format("no such output; allowed: {}", kOutputNames)});
      continue;
    }
    *wanted = true;
    for (const char* unsupported : {"classification", kSharedMemory.data()}) {
      if (!output.parameters().contains(unsupported)) continue;
      violations.push_back({"outputs." + name, fmt::format("parameter {} is not supported", unsupported)});
    }
  }
  if (request.want_embedding && message.outputs_size() > 1) {
    violations.push_back({"outputs.embedding", fmt::format("must be the only output; allowed: {}", kOutputNames)});
  }
  if (request.want_embedding && streaming) {
    violations.push_back({"outputs.embedding", "is not streamed; use ModelInfer"});
  }
  request.generate.set_return_token_ids(request.want_token_ids);
}

// Names of the native API's fields as this protocol's clients know them.
std::string OipField(const std::string& field) {
  constexpr std::string_view kSampling = "sampling.";
  if (field.starts_with(kSampling)) return field.substr(kSampling.size());
  if (field == "input" || field == "prompt") return "text_input";
  if (field == "model") return "model_name";
  if (field == "conversation") return "parameters.sequence_id";
  if (field == "priority_class") return "parameters.priority";
  if (field == "tenant" || field == "user") return "parameters." + field;
  return field;
}

void SetParameter(const char* name, int64_t value, ModelInferResponse& response) {
  (*response.mutable_parameters())[name].set_int64_param(value);
}
void SetParameter(const char* name, const std::string& value, ModelInferResponse& response) {
  (*response.mutable_parameters())[name].set_string_param(value);
}

void EncodeHead(const OipRequest& request, const FlowInfo& info, ModelInferResponse& response) {
  response.set_model_name(info.model);
  response.set_model_version(kOipVersion);
  response.set_id(request.id);
}

// With the last part of an answer. A stream's trailers cannot say this: many requests share them.
void EncodeTail(const FlowInfo& info, ModelInferResponse& response) {
  SetParameter("sluice_request_id", info.request_id, response);
  SetParameter("sluice_pipeline", info.pipeline, response);
}

}  // namespace

absl::Status CheckOipVersion(const std::string& model, const std::string& version) {
  if (version.empty() || version == kOipVersion) return absl::OkStatus();
  return MakeError(
      Reason::kModelVersionNotFound,
      fmt::format("model \"{}\" has no version \"{}\"; its only version is {}", model, version, kOipVersion));
}

absl::StatusOr<OipRequest> DecodeInfer(const ModelInferRequest& message, bool streaming, const FieldLimits& limits) {
  SLUICE_RETURN_IF_ERROR(CheckOipVersion(message.model_name(), message.model_version()));
  SLUICE_RETURN_IF_ERROR(CheckContents(message));
  OipRequest request;
  request.id = message.id();
  request.stream = streaming;
  request.generate.set_model(message.model_name());
  Violations violations;
  OipOptionReader reader(request, violations);
  ReadInputs(message, limits, reader, violations);
  for (const auto& [name, parameter] : message.parameters()) reader.SetParameter(name, parameter);
  ReadOutputs(message, streaming, request, violations);
  if (!reader.given("text_input") && violations.empty()) {
    violations.push_back({"text_input", "missing; wants BYTES of shape [1]"});
  }
  if (request.stream && !streaming) {
    violations.push_back({"stream", "got true; ModelInfer answers once, use ModelStreamInfer to stream"});
  }
  if (request.stream && !request.exclude_input.value_or(true)) {
    violations.push_back({"exclude_input_in_output", "got false; a streamed output never repeats its input"});
  }
  if (!violations.empty()) return InvalidFields(std::move(violations));
  if (!request.stream && !request.exclude_input.value_or(false)) request.repeated_input = request.generate.prompt();
  return request;
}

absl::StatusOr<InferenceRequest> ToInferenceRequest(const OipRequest& decoded, const CallContext& call,
                                                    const FieldLimits& limits) {
  SLUICE_ASSIGN_OR_RETURN(InferenceRequest request, DecodeGenerate(decoded.generate, call, limits));
  request.door = "oip";
  if (decoded.timeout > Duration::zero()) {
    request.deadline = std::min(request.deadline, SaturatingAdd(call.arrival, decoded.timeout));
  }
  return request;
}

absl::Status WithOipFields(const absl::Status& status) {
  ErrorDetails details = GetErrorDetails(status);
  if (details.violations.empty()) return status;
  for (FieldViolation& violation : details.violations) violation.field = OipField(violation.field);
  return InvalidFields(std::move(details.violations));
}

void EncodeChunk(const OipRequest& request, const FlowInfo& info, const OipChunk& chunk, ModelInferResponse& response) {
  EncodeHead(request, info, response);
  const engine::GenerationSummary* summary = chunk.summary;
  if (request.want_text) AddBytesOutput("text_output", chunk.text, response);
  if (request.want_token_ids) AddInt32Output("token_ids", chunk.token_ids, response);
  if (request.want_finish_reason) {
    AddBytesOutput("finish_reason", summary != nullptr ? FinishReasonName(summary->reason) : "", response);
  }
  if (summary == nullptr) return;
  SetParameter("prompt_tokens", summary->prompt_tokens, response);
  SetParameter("output_tokens", summary->output_tokens, response);
  SetParameter("cached_tokens", summary->cached_tokens, response);
  EncodeTail(info, response);
}

void EncodeEmbedding(const OipRequest& request, const FlowInfo& info, const std::vector<float>& values,
                     int prompt_tokens, ModelInferResponse& response) {
  EncodeHead(request, info, response);
  AddFp32Output("embedding", values, response);
  SetParameter("prompt_tokens", prompt_tokens, response);
  EncodeTail(info, response);
}

void SetFinalFlag(bool is_final, ModelInferResponse& response) {
  (*response.mutable_parameters())["triton_final_response"].set_bool_param(is_final);
}

void EncodeEmptyFinal(const OipRequest& request, const FlowInfo& info, ModelInferResponse& response) {
  EncodeHead(request, info, response);
  SetFinalFlag(true, response);
}

void EncodeStreamError(const std::string& id, const std::string& model, const absl::Status& status, int tokens_emitted,
                       ModelStreamInferResponse& response) {
  const std::string reason = ReasonOf(status);
  response.set_error_message(fmt::format("{}: {}", reason, ToStd(status.message())));
  ModelInferResponse& infer = *response.mutable_infer_response();
  infer.set_model_name(model);
  infer.set_id(id);
  SetFinalFlag(true, infer);
  SetParameter("sluice_code", absl::StatusCodeToString(status.code()), infer);
  SetParameter("sluice_reason", reason, infer);
  (*infer.mutable_parameters())["sluice_retry_safe"].set_bool_param(RetrySafe(status, tokens_emitted));
  SetParameter("sluice_tokens_emitted", static_cast<int64_t>(tokens_emitted), infer);
  if (const auto retry_after = GetErrorDetails(status).retry_after; retry_after.has_value()) {
    SetParameter("sluice_retry_after_ms", static_cast<int64_t>(ToMillis(*retry_after)), infer);
  }
}

}  // namespace sluice::services
