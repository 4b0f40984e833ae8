#include "services/grpc/operation.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "services/grpc/status_mapping.h"

namespace sluice::services {

Operation::Operation(grpc::CallbackServerContext* c, const CallGuard& guard, std::string a, std::string t, bool anybody)
    : context(c), reactor(c->DefaultReactor()), action(std::move(a)), target(std::move(t)) {
  absl::StatusOr<CallContext> opened = guard.Open(*context);
  permitted = opened.status();
  if (!opened.ok()) return;
  if (!anybody) permitted = CallGuard::RequireAdmin(*opened);
  call = *std::move(opened);
}

grpc::ServerUnaryReactor* Operation::Finish(const absl::Status& status) const {
  Log(routine && status.ok() ? LogLevel::kDebug : LogLevel::kInfo, "admin",
      {{"request_id", call.request_id},
       {"key", call.caller.key_name},
       {"peer", call.peer},
       {"action", action},
       {"target", target},
       {"result", ReasonOf(status)}});
  reactor->Finish(ToGrpcStatus(status, *context, call.request_id));
  return reactor;
}

std::string Operation::Who() const {
  return call.caller.key_name.empty() ? fmt::format("somebody at {}", call.peer)
                                      : fmt::format("key '{}'", call.caller.key_name);
}

}  // namespace sluice::services
