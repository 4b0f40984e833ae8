// sluice.v1.RolloutService: rollouts for operators. Made by MakeRolloutService (doors.h).
#pragma once

#include "services/grpc/doors.h"
#include "sluice/v1/rollout.grpc.pb.h"

namespace sluice::services {

// Thread-safety: thread-safe; handlers never block. Every call needs an admin.
class RolloutService final : public v1::RolloutService::CallbackService {
 public:
  RolloutService(DoorContext doors, const CallGuard& guard) : doors_(std::move(doors)), guard_(guard) {}

  grpc::ServerUnaryReactor* ListRollouts(grpc::CallbackServerContext* context, const v1::ListRolloutsRequest* request,
                                         v1::ListRolloutsResponse* response) override;
  grpc::ServerUnaryReactor* OrderRollout(grpc::CallbackServerContext* context, const v1::OrderRolloutRequest* request,
                                         v1::OrderRolloutResponse* response) override;
  grpc::ServerUnaryReactor* ListRolloutEvidence(grpc::CallbackServerContext* context,
                                                const v1::ListRolloutEvidenceRequest* request,
                                                v1::ListRolloutEvidenceResponse* response) override;

 private:
  const DoorContext doors_;
  const CallGuard& guard_;
};

}  // namespace sluice::services
