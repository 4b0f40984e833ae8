#include "base/reason.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace sluice {
namespace {

using Code = absl::StatusCode;

constexpr std::array kReasons = {
    ReasonInfo{Reason::kOk, "OK", Code::kOk, 200, true, "it worked"},
    ReasonInfo{Reason::kCancelled, "CANCELLED", Code::kCancelled, 499, false, "the call was cancelled"},
    ReasonInfo{Reason::kUnknown, "UNKNOWN", Code::kUnknown, 500, false, "a failure without a cause; report it"},
    ReasonInfo{Reason::kInvalidArgument, "INVALID_ARGUMENT", Code::kInvalidArgument, 400, true,
               "the request is malformed; the message says where"},
    ReasonInfo{Reason::kDeadlineExceeded, "DEADLINE_EXCEEDED", Code::kDeadlineExceeded, 504, false,
               "the deadline passed while the engine worked"},
    ReasonInfo{Reason::kNotFound, "NOT_FOUND", Code::kNotFound, 404, true,
               "there is no such thing; the message names what there is"},
    ReasonInfo{Reason::kAlreadyExists, "ALREADY_EXISTS", Code::kAlreadyExists, 409, true, "the name is taken"},
    ReasonInfo{Reason::kPermissionDenied, "PERMISSION_DENIED", Code::kPermissionDenied, 403, true,
               "the caller may not do this"},
    ReasonInfo{Reason::kResourceExhausted, "RESOURCE_EXHAUSTED", Code::kResourceExhausted, 429, true,
               "a limit is reached; the message names it"},
    ReasonInfo{Reason::kFailedPrecondition, "FAILED_PRECONDITION", Code::kFailedPrecondition, 400, true,
               "the state of the server does not allow it now"},
    ReasonInfo{Reason::kAborted, "ABORTED", Code::kAborted, 409, true,
               "another change came first; read again, then repeat"},
    ReasonInfo{Reason::kOutOfRange, "OUT_OF_RANGE", Code::kOutOfRange, 400, true, "a value is outside its range"},
    ReasonInfo{Reason::kUnimplemented, "UNIMPLEMENTED", Code::kUnimplemented, 501, true, "this server cannot do it"},
    ReasonInfo{Reason::kInternal, "INTERNAL", Code::kInternal, 500, false, "a fault of the server; report it"},
    ReasonInfo{Reason::kUnavailable, "UNAVAILABLE", Code::kUnavailable, 503, false,
               "the server, or what it depends on, is out of reach"},
    ReasonInfo{Reason::kDataLoss, "DATA_LOSS", Code::kDataLoss, 500, false, "kept data is damaged"},
    ReasonInfo{Reason::kUnauthenticated, "UNAUTHENTICATED", Code::kUnauthenticated, 401, true,
               "the caller is not known"},

    ReasonInfo{Reason::kInvalidField, "INVALID_FIELD", Code::kInvalidArgument, 400, true,
               "fields are out of their limits; `BadRequest` names each"},
    ReasonInfo{Reason::kContextExceeded, "CONTEXT_EXCEEDED", Code::kOutOfRange, 400, true,
               "prompt and `max_tokens` do not fit the model's slot context; shorten one"},
    ReasonInfo{Reason::kTokenMissing, "TOKEN_MISSING", Code::kUnauthenticated, 401, true, "no bearer token was sent"},
    ReasonInfo{Reason::kTokenUnknown, "TOKEN_UNKNOWN", Code::kUnauthenticated, 401, true,
               "the bearer token is not known"},
    ReasonInfo{Reason::kAdminRequired, "ADMIN_REQUIRED", Code::kPermissionDenied, 403, true,
               "the key is not an admin key"},
    ReasonInfo{Reason::kModelNotAllowed, "MODEL_NOT_ALLOWED", Code::kPermissionDenied, 403, true,
               "the key may not use this model"},
    ReasonInfo{Reason::kClientCancelled, "CLIENT_CANCELLED", Code::kCancelled, 499, false, "the client left"},
    ReasonInfo{Reason::kSlowReader, "SLOW_READER", Code::kResourceExhausted, 429, false,
               "the client did not read its stream for too long"},

    ReasonInfo{Reason::kQueueFull, "QUEUE_FULL", Code::kResourceExhausted, 429, true, "too many requests wait already"},
    ReasonInfo{Reason::kQueueTimeout, "QUEUE_TIMEOUT", Code::kResourceExhausted, 429, true,
               "it waited its longest time in the queue"},
    ReasonInfo{Reason::kDeadlineInQueue, "DEADLINE_IN_QUEUE", Code::kDeadlineExceeded, 504, true,
               "the deadline passed before the engine began"},
    ReasonInfo{Reason::kDeadlineUnreachable, "DEADLINE_UNREACHABLE", Code::kResourceExhausted, 429, true,
               "at the present load it would not end before its deadline"},
    ReasonInfo{Reason::kTtftUnreachable, "TTFT_UNREACHABLE", Code::kResourceExhausted, 429, true,
               "at the present load its first token would come later than it asked for"},
    ReasonInfo{Reason::kPolicyShed, "POLICY_SHED", Code::kResourceExhausted, 429, true,
               "a QoS policy sheds this class; `policy` names it"},
    ReasonInfo{Reason::kOverloaded, "OVERLOADED", Code::kUnavailable, 503, true,
               "memory, CPU or file descriptors run out; `resource` names it"},
    ReasonInfo{Reason::kCircuitOpen, "CIRCUIT_OPEN", Code::kUnavailable, 503, true,
               "the model keeps failing, so its circuit breakers are open"},
    ReasonInfo{Reason::kRetryBudget, "RETRY_BUDGET", Code::kResourceExhausted, 429, true,
               "too large a share of the calls are retries; do not retry this one"},
    ReasonInfo{Reason::kQuotaRequests, "QUOTA_REQUESTS", Code::kResourceExhausted, 429, true,
               "the tenant's requests per second are used up"},
    ReasonInfo{Reason::kQuotaConcurrency, "QUOTA_CONCURRENCY", Code::kResourceExhausted, 429, true,
               "the tenant runs as many requests as it may"},
    ReasonInfo{Reason::kQuotaPromptTokens, "QUOTA_PROMPT_TOKENS", Code::kResourceExhausted, 429, true,
               "the tenant's prompt tokens per minute are used up"},
    ReasonInfo{Reason::kQuotaOutputTokens, "QUOTA_OUTPUT_TOKENS", Code::kResourceExhausted, 429, true,
               "the tenant's output tokens per minute are used up"},
    ReasonInfo{Reason::kDraining, "DRAINING", Code::kUnavailable, 503, true,
               "the server is about to stop; another replica may serve"},

    ReasonInfo{Reason::kEngineStepFailed, "ENGINE_STEP_FAILED", Code::kInternal, 500, false,
               "the backend failed in a step that this request was part of"},
    ReasonInfo{Reason::kEngineNoRoom, "ENGINE_NO_ROOM", Code::kUnavailable, 503, false,
               "the backend's KV memory had no room for the step"},
    ReasonInfo{Reason::kModelNotFound, "MODEL_NOT_FOUND", Code::kNotFound, 404, true, "no model has this name"},
    ReasonInfo{Reason::kModelVersionNotFound, "MODEL_VERSION_NOT_FOUND", Code::kNotFound, 404, true,
               "the model has one version only"},
    ReasonInfo{Reason::kModelNotLoaded, "MODEL_NOT_LOADED", Code::kUnavailable, 503, true,
               "the model is configured, but not loaded"},
    ReasonInfo{Reason::kModelLoading, "MODEL_LOADING", Code::kUnavailable, 503, true, "the model is being loaded"},
    ReasonInfo{Reason::kModelUnloading, "MODEL_UNLOADING", Code::kUnavailable, 503, true,
               "the model is being unloaded"},
    ReasonInfo{Reason::kModelFailed, "MODEL_FAILED", Code::kUnavailable, 503, true, "the model could not be loaded"},
    ReasonInfo{Reason::kModelPinned, "MODEL_PINNED", Code::kFailedPrecondition, 400, true,
               "a pinned model is not unloaded"},
    ReasonInfo{Reason::kModelInUse, "MODEL_IN_USE", Code::kFailedPrecondition, 400, true,
               "the model is loading or serves requests"},
    ReasonInfo{Reason::kModelAlreadyLoaded, "MODEL_ALREADY_LOADED", Code::kFailedPrecondition, 400, true,
               "the name is loaded from another file"},
    ReasonInfo{Reason::kModelPathNotAllowed, "MODEL_PATH_NOT_ALLOWED", Code::kPermissionDenied, 403, true,
               "the file is outside `model_roots`"},
    ReasonInfo{Reason::kModelFileNotFound, "MODEL_FILE_NOT_FOUND", Code::kNotFound, 404, true,
               "there is no such model file"},
    ReasonInfo{Reason::kModelFileInvalid, "MODEL_FILE_INVALID", Code::kInvalidArgument, 400, true,
               "the file is no usable model"},
    ReasonInfo{Reason::kModelProbeTimeout, "MODEL_PROBE_TIMEOUT", Code::kDeadlineExceeded, 504, true,
               "the trial load in a child process took too long"},
    ReasonInfo{Reason::kNoRoomForModel, "NO_ROOM_FOR_MODEL", Code::kResourceExhausted, 503, true,
               "every loaded model is pinned or in use, and there is no room for one more"},

    ReasonInfo{Reason::kFlagNotFound, "FLAG_NOT_FOUND", Code::kNotFound, 404, true, "no flag has this name"},
    ReasonInfo{Reason::kTypeMismatch, "TYPE_MISMATCH", Code::kInvalidArgument, 400, true,
               "the flag's values are of another type"},
    ReasonInfo{Reason::kParseError, "PARSE_ERROR", Code::kDataLoss, 500, true, "the flag's definition is broken"},
    ReasonInfo{Reason::kInvalidContext, "INVALID_CONTEXT", Code::kInvalidArgument, 400, true,
               "the evaluation context is no object"},
    ReasonInfo{Reason::kGeneral, "GENERAL", Code::kUnknown, 500, true,
               "OpenFeature's word for any other fault of an evaluation"},
    ReasonInfo{Reason::kTooManyWatchers, "TOO_MANY_WATCHERS", Code::kResourceExhausted, 429, true,
               "as many clients watch the flags as may"},
    ReasonInfo{Reason::kTooManyEventStreams, "TOO_MANY_EVENT_STREAMS", Code::kResourceExhausted, 429, true,
               "as many event streams are open as may"},
    ReasonInfo{Reason::kTooManyChanges, "TOO_MANY_CHANGES", Code::kResourceExhausted, 429, true,
               "many changes of flags wait already"},
    ReasonInfo{Reason::kStateNotKept, "STATE_NOT_KEPT", Code::kUnavailable, 503, true,
               "the state store refused the change, so it was taken back"},
    ReasonInfo{Reason::kRevisionConflict, "REVISION_CONFLICT", Code::kAborted, 409, true,
               "somebody else changed the key in between"},
    ReasonInfo{Reason::kEpochChanged, "EPOCH_CHANGED", Code::kAborted, 409, true,
               "the epoch that was expected is not the one in use: look again"},
    ReasonInfo{Reason::kRolloutNotFound, "ROLLOUT_NOT_FOUND", Code::kNotFound, 404, true,
               "no rollout of this flag is defined"},
    ReasonInfo{Reason::kRolloutRefused, "ROLLOUT_REFUSED", Code::kFailedPrecondition, 409, true,
               "the rollout's phase does not allow it"},
    ReasonInfo{Reason::kNotLeader, "NOT_LEADER", Code::kFailedPrecondition, 409, true,
               "only the leader of the replicas may raise: the message names it"},
    ReasonInfo{Reason::kFaultInjected, "FAULT_INJECTED", Code::kInternal, 500, false,
               "the operator makes this pipeline fail on purpose"},
};

constexpr bool InOrder() {
  for (size_t i = 0; i < kReasons.size(); ++i) {
    if (kReasons[i].reason != static_cast<Reason>(i)) return false;
  }
  return kReasons.back().reason == Reason::kFaultInjected;
}
static_assert(InOrder(), "a row for each Reason, in its order");

}  // namespace

const ReasonInfo& Describe(Reason reason) {
  const auto index = static_cast<size_t>(reason);
  SLUICE_CHECK(index < kReasons.size(), "a Reason outside its enum");
  return kReasons[index];
}

std::span<const ReasonInfo> AllReasons() { return kReasons; }

std::optional<Reason> FindReason(std::string_view word) {
  const auto found =
      std::find_if(kReasons.begin(), kReasons.end(), [&](const ReasonInfo& r) { return r.word == word; });
  return found == kReasons.end() ? std::nullopt : std::optional(found->reason);
}

Reason ReasonOfCode(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);  // the enum begins with gRPC's codes in their order
  return index <= static_cast<size_t>(Reason::kUnauthenticated) ? static_cast<Reason>(index) : Reason::kUnknown;
}

}  // namespace sluice
