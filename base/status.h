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

namespace sluice {

struct FieldViolation {
  std::string field;        // path in the request, e.g. "sampling.temperature"
  std::string description;  // what was found and what is allowed: "got 3.5; allowed 0 to 2"
};

struct ErrorDetails {
  // UPPER_SNAKE_CASE, at most 63 characters (google.rpc.ErrorInfo.reason); the same word is the metric label,
  // log field and HTTP error code. Empty: derived from the status code.
  std::string reason;
  std::optional<Duration> retry_after;  // set when trying again later can help
  std::vector<FieldViolation> violations;
  std::map<std::string, std::string> metadata;  // keys at most 64 characters, unit in the key
};

// A status of `code` with `details` attached. `message` is for people.
absl::Status MakeError(absl::StatusCode code, std::string_view message, const ErrorDetails& details);

// INVALID_ARGUMENT naming every violated field at once. Requires: violations not empty.
absl::Status InvalidFields(std::vector<FieldViolation> violations);

// What MakeError attached; empty details when nothing was.
ErrorDetails GetErrorDetails(const absl::Status& status);

// `reason` of the details, else a word for the code ("UNAVAILABLE"); "OK" for an OK status.
std::string ReasonOf(const absl::Status& status);

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
