// Messages of the native API ↔ requests and results of Sluice. The comments of protos/sluice/v1/inference.proto say
// what is allowed; limits that need the model (vocabulary, slot context) are checked further on, by the flow.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/models/model_pool.h"
#include "engine/scheduler/token_stream.h"
#include "services/grpc/call_context.h"
#include "services/grpc/doors.h"
#include "services/request.h"
#include "sluice/v1/inference.pb.h"

namespace sluice::services {

// All of these: INVALID_ARGUMENT naming every violated field at once.
// A field of the message wins over the call's header: class, tenant, conversation (x-session-id), request id. The
// earlier deadline holds. `door` is "grpc".
absl::StatusOr<InferenceRequest> DecodeGenerate(const v1::GenerateRequest& message, const CallContext& call,
                                                const FieldLimits& limits);

struct EmbedCall {
  InferenceRequest request;
  std::vector<std::string> inputs;
};
absl::StatusOr<EmbedCall> DecodeEmbed(const v1::EmbedRequest& message, const CallContext& call,
                                      const FieldLimits& limits);

absl::Status CheckTokenize(const v1::TokenizeRequest& message, const FieldLimits& limits);
// Also names each token id outside 0 <= id < vocab_size by index (the first few).
absl::Status CheckDetokenize(const v1::DetokenizeRequest& message, int vocab_size);
std::vector<engine::ChatMessage> DecodeChat(const v1::Chat& chat);

// Adds what `batch` brought: text always, token ids and log probabilities as asked.
struct EncodeOptions {
  bool token_ids = false;
  bool logprobs = false;
};
void EncodeTokens(const engine::TokenStream::Batch& batch, const EncodeOptions& options,
                  const engine::Tokenizer& tokenizer, v1::GenerateResponse& response);
void EncodeFinish(const engine::GenerationSummary& summary, const FlowInfo& info, v1::Finish& finish);
void EncodeModel(const engine::ModelInfo& info, v1::Model& model);

}  // namespace sluice::services
