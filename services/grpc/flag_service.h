// sluice.v1.FlagService: the flag gate for operators. Made by MakeFlagService (doors.h).
#pragma once

#include <atomic>
#include <memory>

#include "services/flag_control.h"
#include "services/grpc/doors.h"
#include "sluice/v1/flags.grpc.pb.h"

namespace sluice::services {

// Thread-safety: thread-safe; handlers never block. Every call but Evaluate needs an admin.
class FlagService final : public v1::FlagService::CallbackService {
 public:
  FlagService(DoorContext doors, const CallGuard& guard);

  grpc::ServerUnaryReactor* Evaluate(grpc::CallbackServerContext* context, const v1::EvaluateFlagRequest* request,
                                     v1::EvaluateFlagResponse* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const v1::ExplainFlagRequest* request,
                                    v1::ExplainFlagResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListFlagsRequest* request,
                                 v1::ListFlagsResponse* response) override;
  grpc::ServerWriteReactor<v1::FlagEvent>* Watch(grpc::CallbackServerContext* context,
                                                 const v1::WatchFlagsRequest* request) override;
  grpc::ServerUnaryReactor* Set(grpc::CallbackServerContext* context, const v1::SetFlagRequest* request,
                                v1::SetFlagResponse* response) override;
  grpc::ServerUnaryReactor* EmergencyStop(grpc::CallbackServerContext* context, const v1::EmergencyStopRequest* request,
                                          v1::EmergencyStopResponse* response) override;

 private:
  const DoorContext doors_;
  const CallGuard& guard_;
  const std::shared_ptr<std::atomic<int>> watchers_;  // atomic: counted on any thread
};

}  // namespace sluice::services
