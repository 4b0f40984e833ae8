// Why a request was refused or failed: one vocabulary. The same word is google.rpc.ErrorInfo.reason, metric label, log
// field, audit field and HTTP error code. docs/operations.md lists it; a test compares that list with this enum.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace sluice {

enum class Reason : uint8_t {
  // The words of the gRPC codes: of a status that says no more.
  kOk,
  kCancelled,
  kUnknown,
  kInvalidArgument,
  kDeadlineExceeded,
  kNotFound,
  kAlreadyExists,
  kPermissionDenied,
  kResourceExhausted,
  kFailedPrecondition,
  kAborted,
  kOutOfRange,
  kUnimplemented,
  kInternal,
  kUnavailable,
  kDataLoss,
  kUnauthenticated,
  // The caller.
  kInvalidField,
  kContextExceeded,
  kTokenMissing,
  kTokenUnknown,
  kAdminRequired,
  kModelNotAllowed,
  kClientCancelled,
  kSlowReader,
  // Admission and policies.
  kQueueFull,
  kQueueTimeout,
  kDeadlineInQueue,
  kDeadlineUnreachable,
  kTtftUnreachable,
  kPolicyShed,
  kOverloaded,
  kCircuitOpen,
  kRetryBudget,
  kQuotaRequests,
  kQuotaConcurrency,
  kQuotaPromptTokens,
  kQuotaOutputTokens,
  kDraining,
  // Engine and models.
  kEngineStepFailed,
  kEngineNoRoom,
  kModelNotFound,
  kModelVersionNotFound,
  kModelNotLoaded,
  kModelLoading,
  kModelUnloading,
  kModelFailed,
  kModelPinned,
  kModelInUse,
  kModelAlreadyLoaded,
  kModelPathNotAllowed,
  kModelFileNotFound,
  kModelFileInvalid,
  kModelProbeTimeout,
  kNoRoomForModel,
  // Flags and state.
  kFlagNotFound,
  kTypeMismatch,
  kParseError,
  kInvalidContext,
  kGeneral,
  kTooManyWatchers,
  kTooManyEventStreams,
  kTooManyChanges,
  kStateNotKept,
  kRevisionConflict,
  // Rollouts.
  kEpochChanged,
  kRolloutNotFound,
  kRolloutRefused,
  kNotLeader,
  kFaultInjected,
};

struct ReasonInfo {
  Reason reason = Reason::kOk;
  std::string_view word;  // UPPER_SNAKE_CASE, at most 63 characters
  absl::StatusCode code = absl::StatusCode::kOk;
  int http_status = 200;     // 429: others are served meanwhile; 503: nobody is
  bool nothing_done = true;  // the work did not begin, or left no trace: the caller may safely send it again
  std::string_view meaning;  // for people: the cause and what to do
};

// All of these are pure; what they return lives for ever.
const ReasonInfo& Describe(Reason reason);
inline std::string_view ReasonWord(Reason reason) { return Describe(reason).word; }
std::span<const ReasonInfo> AllReasons();                 // in order of the enum
std::optional<Reason> FindReason(std::string_view word);  // nullopt: no such word
Reason ReasonOfCode(absl::StatusCode code);               // "UNAVAILABLE" of kUnavailable; "UNKNOWN" of what is no code

}  // namespace sluice
