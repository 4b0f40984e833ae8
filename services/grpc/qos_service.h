// sluice.v1.QosService: policies, decisions and breakers for operators. Made by MakeQosService (doors.h).
#pragma once

#include "services/grpc/doors.h"
#include "sluice/v1/qos.grpc.pb.h"

namespace sluice::services {

// Thread-safety: thread-safe; handlers never block. Every call needs an admin.
class QosService final : public v1::QosService::CallbackService {
 public:
  QosService(DoorContext doors, const CallGuard& guard) : doors_(std::move(doors)), guard_(guard) {}

  grpc::ServerUnaryReactor* GetQosStatus(grpc::CallbackServerContext* context, const v1::GetQosStatusRequest* request,
                                         v1::GetQosStatusResponse* response) override;
  grpc::ServerUnaryReactor* ListDecisions(grpc::CallbackServerContext* context, const v1::ListDecisionsRequest* request,
                                          v1::ListDecisionsResponse* response) override;
  grpc::ServerUnaryReactor* ExplainQos(grpc::CallbackServerContext* context, const v1::ExplainQosRequest* request,
                                       v1::ExplainQosResponse* response) override;
  grpc::ServerUnaryReactor* SetBreaker(grpc::CallbackServerContext* context, const v1::SetBreakerRequest* request,
                                       v1::SetBreakerResponse* response) override;

 private:
  const DoorContext doors_;
  const CallGuard& guard_;
};

}  // namespace sluice::services
