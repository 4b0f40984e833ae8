// What every handler learns about a call before it looks at the message: id, caller, time. One guard for all doors and
// services, in place of server interceptors (they cannot refuse a call with a status; docs/adr/0002-edge-api-style.md).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "config/server_config.h"
#include "flags/flag_gate.h"
#include "services/request.h"

namespace grpc {
class CallbackServerContext;
}

namespace sluice::services {

struct CallContext {
  std::string request_id;  // x-request-id, or a new one
  Caller caller;
  MonoTime arrival{};
  MonoTime deadline = kInfiniteFuture;  // from grpc-timeout
  int previous_attempts = 0;            // from grpc-previous-rpc-attempts; what is no number is none
  std::string peer;
  // Headers a door may use: x-sluice-class, x-sluice-tenant, x-session-id, x-llm-d-slo-ttft-ms; and those that the
  // rules of flags look at, or that are a targeting key. Lower case, printable.
  std::map<std::string, std::string> headers;
  // While a copy of this lives the call counts as open: a reactor keeps its CallContext until OnDone.
  std::shared_ptr<const void> open;
};

// Thread-safety: thread-safe.
class CallGuard {
 public:
  // `keys` empty: everybody is an unauthenticated caller and an admin (loopback, or insecure by choice).
  // `gate` null: no rules. It outlives this. `targeting_key`: as config::FlagOptions; its headers are read as well.
  CallGuard(std::vector<config::ApiKey> keys, const Clock& clock, const flags::FlagGate* gate = nullptr,
            const std::vector<std::string>& targeting_key = {});
  ~CallGuard();

  // UNAUTHENTICATED (TOKEN_MISSING, TOKEN_UNKNOWN) when keys exist and `authorization: Bearer …` does not match;
  // INVALID_ARGUMENT for an x-request-id longer than 128 bytes, another header of CallContext longer than 256 bytes, or
  // one that is not printable ASCII. Tokens are compared by SHA-256 in constant time.
  absl::StatusOr<CallContext> Open(const grpc::CallbackServerContext& context) const;

  // Calls that were opened and are not yet done.
  int open_calls() const;
  // Blocks until no call is open or `timeout` passed; returns whether none is.
  bool WaitIdle(Duration timeout) const;

  // PERMISSION_DENIED (ADMIN_REQUIRED) unless the caller is an admin.
  static absl::Status RequireAdmin(const CallContext& call);

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

// A fresh request id: 32 hex digits, unique in practice across replicas.
std::string NewRequestId();

}  // namespace sluice::services
