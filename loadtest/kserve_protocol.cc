#include "loadtest/kserve_protocol.h"

#include <algorithm>

#include "base/strings.h"

namespace sluice::loadtest {
namespace {

constexpr int64_t kMaxTimeoutUs = 86'400'000'000;  // a day

int64_t PriorityOf(const std::string& priority_class) {
  if (priority_class == "system") return 1;
  if (priority_class == "interactive") return 2;
  if (priority_class == "standard") return 3;
  return priority_class == "batch" ? 4 : 0;
}

const inference::InferParameter* Find(const inference::ModelInferResponse& response, const char* name) {
  const auto it = response.parameters().find(name);
  return it == response.parameters().end() ? nullptr : &it->second;
}

void ReadCount(const inference::ModelInferResponse& response, const char* name, int64_t* count) {
  if (const auto* parameter = Find(response, name)) *count = parameter->int64_param();
}

}  // namespace

absl::Status EncodeKserveRequest(const Request& request, const std::string& model,
                                 inference::ModelInferRequest* proto) {
  if (!request.chat.empty()) return absl::UnimplementedError("KServe v2 has no chats: set workload to plain prompts");
  if (!request.token_ids.empty()) {
    return absl::UnimplementedError("KServe v2 takes text, no token ids: set workload to plain prompts");
  }
  proto->set_model_name(model);
  proto->set_id(request.id);
  auto* input = proto->add_inputs();
  input->set_name("text_input");
  input->set_datatype("BYTES");
  input->add_shape(1);
  input->mutable_contents()->add_bytes_contents(request.prompt);

  auto& parameters = *proto->mutable_parameters();
  parameters["max_tokens"].set_int64_param(request.max_tokens);
  parameters["temperature"].set_double_param(request.temperature);
  parameters["seed"].set_uint64_param(request.seed);
  parameters["ignore_eos"].set_bool_param(request.ignore_eos);
  parameters["exclude_input_in_output"].set_bool_param(true);
  parameters["triton_enable_empty_final_response"].set_bool_param(true);  // Triton marks no other answer as the last
  const int64_t timeout_us = std::chrono::duration_cast<std::chrono::microseconds>(request.timeout).count();
  parameters["timeout"].set_int64_param(std::min(timeout_us, kMaxTimeoutUs));
  if (const int64_t priority = PriorityOf(request.priority_class); priority > 0) {
    parameters["priority"].set_uint64_param(static_cast<uint64_t>(priority));
  }
  if (!request.tenant.empty()) parameters["tenant"].set_string_param(request.tenant);
  if (!request.user.empty()) parameters["user"].set_string_param(request.user);
  if (!request.conversation.empty()) parameters["sequence_id"].set_string_param(request.conversation);
  return absl::OkStatus();
}

std::string_view KserveText(const inference::ModelInferResponse& response) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (response.outputs(i).name() != "text_output") continue;
    if (i < response.raw_output_contents_size()) {
      const std::string& raw = response.raw_output_contents(i);  // the length in four bytes, then the text
      return raw.size() <= 4 ? std::string_view() : std::string_view(raw).substr(4);
    }
    const auto& contents = response.outputs(i).contents().bytes_contents();
    return contents.empty() ? std::string_view() : std::string_view(contents[0]);
  }
  return {};
}

void ReadKserveUsage(const inference::ModelInferResponse& response, Record* record) {
  if (response.parameters().empty()) return;
  ReadCount(response, "prompt_tokens", &record->prompt_tokens);
  ReadCount(response, "cached_tokens", &record->cached_tokens);
  ReadCount(response, "output_tokens", &record->output_tokens);
  if (const auto* pipeline = Find(response, "sluice_pipeline")) record->pipeline = pipeline->string_param();
}

bool IsKserveFinal(const inference::ModelInferResponse& response) {
  const auto* parameter = Find(response, "triton_final_response");
  return parameter != nullptr && parameter->bool_param();
}

absl::Status KserveError(const inference::ModelStreamInferResponse& response) {
  if (response.error_message().empty()) return absl::OkStatus();
  auto code = absl::StatusCode::kUnknown;
  if (const auto* name = Find(response.infer_response(), "sluice_code")) {
    for (int i = 1; i <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++i) {
      const auto candidate = static_cast<absl::StatusCode>(i);
      if (absl::StatusCodeToString(candidate) == name->string_param()) code = candidate;
    }
  }
  return absl::Status(code, response.error_message());
}

}  // namespace sluice::loadtest
