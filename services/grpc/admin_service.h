// sluice.v1.AdminService: operations. Made by MakeAdminService (doors.h).
#pragma once

#include "services/grpc/doors.h"
#include "sluice/v1/admin.grpc.pb.h"

namespace sluice::services {

// Thread-safety: thread-safe; handlers never block on a load. Every call needs an admin (CallGuard::RequireAdmin) and
// leaves one log line "admin": who, what, on which model, with what result (GetStatus: at debug level when it worked).
class AdminService final : public v1::AdminService::CallbackService {
 public:
  AdminService(DoorContext doors, const CallGuard& guard)
      : doors_(std::move(doors)), guard_(guard), started_(doors_.clock.Now()) {}

  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context, const v1::LoadModelRequest* request,
                                      v1::LoadModelResponse* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context, const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse* response) override;
  grpc::ServerUnaryReactor* PinModel(grpc::CallbackServerContext* context, const v1::PinModelRequest* request,
                                     v1::PinModelResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context, const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  const DoorContext doors_;
  const CallGuard& guard_;
  const FieldLimits limits_;
  const MonoTime started_;  // of the service, so of the server but for an instant
};

}  // namespace sluice::services
