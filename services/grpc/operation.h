// One unary call of an operator, on its way to an answer and a line in the log.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "services/grpc/call_context.h"

namespace grpc {
class CallbackServerContext;
class ServerUnaryReactor;
}  // namespace grpc

namespace sluice::services {

// Copyable; Finish once. Thread-safety: one thread at a time.
struct Operation {
  // Opens the call. `permitted` is OK when the caller is an admin, or, with `anybody`, just known.
  Operation(grpc::CallbackServerContext* context, const CallGuard& guard, std::string action, std::string target,
            bool anybody = false);

  // Logs "admin": who, what, on which target, with what result (`routine` ones that worked at debug level), and ends
  // the call.
  grpc::ServerUnaryReactor* Finish(const absl::Status& status) const;

  // "key 'ops'", or "somebody at 127.0.0.1:5000" where no keys are configured.
  std::string Who() const;

  grpc::CallbackServerContext* context;
  grpc::ServerUnaryReactor* reactor;
  std::string action, target;
  bool routine = false;
  CallContext call;
  absl::Status permitted;
};

}  // namespace sluice::services
