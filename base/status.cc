#include "base/status.h"

#include <charconv>

#include "absl/strings/cord.h"
#include "base/check.h"
#include "base/strings.h"

namespace sluice {
namespace {

constexpr char kPayloadUrl[] = "sluice/error-details";

// The payload never leaves the process: a flat list of length-prefixed strings is all it takes.
void Put(std::string& out, std::string_view s) {
  out += std::to_string(s.size());
  out += ':';
  out += s;
}

class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  std::string Next() {
    const size_t colon = in_.find(':');
    SLUICE_CHECK(colon != std::string_view::npos, "error details are written by MakeError only");
    size_t n = 0;
    std::from_chars(in_.data(), in_.data() + colon, n);
    std::string out(in_.substr(colon + 1, n));
    in_.remove_prefix(colon + 1 + n);
    return out;
  }
  size_t NextCount() { return std::stoul(Next()); }

 private:
  std::string_view in_;
};

}  // namespace

absl::Status MakeError(Reason reason, std::string_view message, ErrorDetails details) {
  SLUICE_CHECK(reason != Reason::kOk, "an error needs a reason");
  absl::Status status(Describe(reason).code, ToAbsl(message));
  std::string payload;
  Put(payload, std::to_string(static_cast<int>(reason)));
  Put(payload, details.retry_after ? std::to_string(details.retry_after->count()) : "");
  Put(payload, std::to_string(details.violations.size()));
  for (const FieldViolation& v : details.violations) {
    Put(payload, v.field);
    Put(payload, v.description);
  }
  Put(payload, std::to_string(details.metadata.size()));
  for (const auto& [key, value] : details.metadata) {
    Put(payload, key);
    Put(payload, value);
  }
  status.SetPayload(kPayloadUrl, absl::Cord(payload));
  return status;
}

absl::Status InvalidFields(std::vector<FieldViolation> violations) {
  SLUICE_CHECK(!violations.empty(), "InvalidFields needs a violation");
  std::string message;
  for (const FieldViolation& v : violations) {
    if (!message.empty()) message += "; ";
    message += v.field + ": " + v.description;
  }
  return MakeError(Reason::kInvalidField, message, {.violations = std::move(violations)});
}

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details{.reason = ReasonOfCode(status.code())};
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return details;
  const std::string text(*payload);
  Reader in(text);
  details.reason = static_cast<Reason>(std::stoi(in.Next()));
  if (const std::string retry = in.Next(); !retry.empty()) details.retry_after = Duration(std::stoll(retry));
  for (size_t n = in.NextCount(); n > 0; --n) {
    std::string field = in.Next();
    details.violations.push_back({std::move(field), in.Next()});
  }
  for (size_t n = in.NextCount(); n > 0; --n) {
    std::string key = in.Next();
    details.metadata[std::move(key)] = in.Next();
  }
  return details;
}

std::string ReasonOf(const absl::Status& status) { return std::string(ReasonWord(GetErrorDetails(status).reason)); }

bool RetrySafe(const absl::Status& status, std::optional<int> tokens_emitted) {
  if (tokens_emitted.has_value()) return *tokens_emitted == 0;  // a generation has no other effect than its tokens
  return Describe(GetErrorDetails(status).reason).nothing_done;
}

}  // namespace sluice
