// Errors with the detail that a client needs, carried on absl::Status so that no folder but services/ knows
// the wire format. services/grpc turns them into google.rpc.{ErrorInfo,RetryInfo,BadRequest,QuotaFailure}.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/reason.h"

namespace sluice {

struct FieldViolation {
  std::string field;        // path in the request, e.g. "sampling.temperature"
  std::string description;  // what was found and what is allowed: "got 3.5; allowed 0 to 2"
};

struct ErrorDetails {
  Reason reason = Reason::kOk;          // MakeError sets it
  std::optional<Duration> retry_after;  // set when trying again later can help
  std::vector<FieldViolation> violations;
  std::map<std::string, std::string> metadata;  // keys at most 64 characters, unit in the key
};

// A status with the code that belongs to `reason` and with `details` attached. `message` is for people.
// Requires: not Reason::kOk.
absl::Status MakeError(Reason reason, std::string_view message, ErrorDetails details = {});

// INVALID_ARGUMENT naming every violated field at once. Requires: violations not empty.
absl::Status InvalidFields(std::vector<FieldViolation> violations);

// What MakeError attached; when nothing was, only the reason that stands for the code.
ErrorDetails GetErrorDetails(const absl::Status& status);

// The word of its reason: "QUEUE_FULL", or for a status without details "UNAVAILABLE"; "OK" for an OK status.
std::string ReasonOf(const absl::Status& status);

// May the caller send the same again without doing anything twice? `tokens_emitted`: of a generation that far; nullopt:
// it was none, so only the reason counts.
bool RetrySafe(const absl::Status& status, std::optional<int> tokens_emitted = std::nullopt);

}  // namespace sluice

#define SLUICE_CONCAT_INNER_(a, b) a##b
#define SLUICE_CONCAT_(a, b) SLUICE_CONCAT_INNER_(a, b)

#define SLUICE_RETURN_IF_ERROR(expression)                      \
  do {                                                          \
    if (::absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                           \
    }                                                           \
  } while (false)

#define SLUICE_ASSIGN_OR_RETURN(declaration, expression) \
  SLUICE_ASSIGN_OR_RETURN_(SLUICE_CONCAT_(status_or_, __LINE__), declaration, expression)

#define SLUICE_ASSIGN_OR_RETURN_(tmp, declaration, expression) \
  auto tmp = (expression);                                     \
  if (!tmp.ok()) return tmp.status();                          \
  declaration = *std::move(tmp)
