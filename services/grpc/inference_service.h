// sluice.v1.InferenceService: the native door. Made by MakeInferenceService (doors.h).
#pragma once

#include "services/grpc/doors.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::services {

// Thread-safety: thread-safe; handlers never block.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  InferenceService(DoorContext doors, const CallGuard& guard) : doors_(std::move(doors)), guard_(guard) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  const DoorContext doors_;
  const CallGuard& guard_;
  const FieldLimits limits_;
};

}  // namespace sluice::services
