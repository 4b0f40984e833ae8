#include "services/grpc/status_mapping.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "services/request.h"

namespace sluice::services {
namespace {

constexpr char kDomain[] = "sluice";

// Clients refuse trailers above 8 KiB by default and would then see no status at all. Together these stay below it,
// even when the message, which travels twice, is percent-encoded once and everything else is base64.
constexpr size_t kMaxMessageBytes = 768;
constexpr size_t kMaxViolationBytes = 1024;  // fields and descriptions together
constexpr size_t kMaxFieldBytes = 128;
constexpr size_t kMaxDescriptionBytes = 384;
constexpr size_t kMaxMetadataBytes = 256;  // keys and values together
constexpr size_t kMaxNameBytes = 128;      // ids and names
constexpr size_t kMaxExplanationBytes = 512;

std::string Cut(std::string_view s, size_t max_bytes) {
  constexpr std::string_view kMark = "...";
  if (s.size() <= max_bytes) return ReplaceInvalidUtf8(s);
  const std::string_view kept = s.substr(0, max_bytes - kMark.size());
  return ReplaceInvalidUtf8(kept.substr(0, CompleteUtf8Prefix(kept))).append(kMark);
}

google::rpc::ErrorInfo MakeErrorInfo(const absl::Status& status, const ErrorDetails& details,
                                     std::optional<int> tokens_emitted) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(ReasonWord(details.reason)));
  info.set_domain(kDomain);
  auto& metadata = *info.mutable_metadata();
  metadata["retry_safe"] = RetrySafe(status, tokens_emitted) ? "true" : "false";
  if (tokens_emitted.has_value()) metadata["tokens_emitted"] = std::to_string(*tokens_emitted);
  size_t bytes = 0;
  for (const auto& [key, value] : details.metadata) {
    bytes += key.size() + value.size();
    if (bytes > kMaxMetadataBytes) break;
    metadata[key] = ReplaceInvalidUtf8(value);
  }
  return info;
}

google::rpc::BadRequest MakeBadRequest(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad;
  size_t bytes = 0;
  for (size_t i = 0; i < violations.size(); ++i) {
    std::string field = Cut(violations[i].field, kMaxFieldBytes);
    std::string description = Cut(violations[i].description, kMaxDescriptionBytes);
    bytes += field.size() + description.size();
    auto* out = bad.add_field_violations();
    if (bytes > kMaxViolationBytes) {
      out->set_description(fmt::format("and {} more", violations.size() - i));
      break;
    }
    out->set_field(std::move(field));
    out->set_description(std::move(description));
  }
  return bad;
}

google::rpc::QuotaFailure MakeQuotaFailure(const std::vector<FieldViolation>& violations) {
  google::rpc::QuotaFailure failure;
  size_t bytes = 0;
  for (const FieldViolation& violation : violations) {
    std::string subject = Cut(violation.field, kMaxFieldBytes);
    std::string description = Cut(violation.description, kMaxDescriptionBytes);
    bytes += subject.size() + description.size();
    if (bytes > kMaxViolationBytes) break;
    auto* out = failure.add_violations();
    out->set_subject(std::move(subject));
    out->set_description(std::move(description));
  }
  return failure;
}

google::rpc::RetryInfo MakeRetryInfo(Duration retry_after) {
  google::rpc::RetryInfo info;
  const Duration delay = std::max(retry_after, Duration::zero());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(delay);
  info.mutable_retry_delay()->set_seconds(seconds.count());
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>((delay - seconds).count()));
  return info;
}

// "-1" tells clients with a retry policy to leave it; nothing is said about errors that they would not retry.
void AddPushback(const absl::Status& status, const ErrorDetails& details, grpc::CallbackServerContext& context) {
  std::string pushback;
  if (details.retry_after.has_value()) {
    const Duration delay = std::max(*details.retry_after, Duration::zero());
    pushback = std::to_string(std::chrono::ceil<std::chrono::milliseconds>(delay).count());
  } else if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) {
    pushback = "-1";
  } else {
    return;
  }
  context.AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
}

// gRPC aborts the process over a metadata value that HTTP/2 forbids, so nothing else may reach it.
void AddTrailer(const char* key, std::string_view value, size_t max_bytes, grpc::CallbackServerContext& context) {
  if (value.empty()) return;
  std::string safe(value.substr(0, max_bytes));
  std::replace_if(
      safe.begin(), safe.end(), [](char c) { return c < 0x20 || c >= 0x7F; }, '?');
  context.AddTrailingMetadata(key, safe);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status, grpc::CallbackServerContext& context,
                          const std::string& request_id, std::optional<int> tokens_emitted) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorDetails details = GetErrorDetails(status);
  const std::string message = Cut(ToStd(status.message()), kMaxMessageBytes);
  google::rpc::Status wire;
  wire.set_code(static_cast<int>(status.code()));  // absl's codes are gRPC's
  wire.set_message(message);
  wire.add_details()->PackFrom(MakeErrorInfo(status, details, tokens_emitted));
  if (!details.violations.empty() && absl::IsResourceExhausted(status)) {
    wire.add_details()->PackFrom(MakeQuotaFailure(details.violations));
  } else if (!details.violations.empty()) {
    wire.add_details()->PackFrom(MakeBadRequest(details.violations));
  }
  if (details.retry_after.has_value()) wire.add_details()->PackFrom(MakeRetryInfo(*details.retry_after));
  if (!request_id.empty()) {
    google::rpc::RequestInfo request;
    request.set_request_id(Cut(request_id, kMaxNameBytes));
    wire.add_details()->PackFrom(request);
  }
  AddPushback(status, details, context);
  return {static_cast<grpc::StatusCode>(wire.code()), message, wire.SerializeAsString()};
}

void AddTrailers(const FlowInfo& info, grpc::CallbackServerContext& context) {
  AddTrailer("sluice-request-id", info.request_id, kMaxNameBytes, context);
  AddTrailer("sluice-flags", info.flags, kMaxExplanationBytes, context);
  AddTrailer("sluice-qos", info.qos, kMaxExplanationBytes, context);
  AddTrailer("sluice-pipeline", info.pipeline, kMaxNameBytes, context);
  AddTrailer("sluice-model", info.model, kMaxNameBytes, context);
}

}  // namespace sluice::services
