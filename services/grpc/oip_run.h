// One request of the Open Inference Protocol on its way: handed to the flow, read part by part, encoded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "inference/grpc_service.pb.h"
#include "services/grpc/doors.h"
#include "services/grpc/oip_codec.h"
#include "services/grpc/oip_statistics.h"
#include "services/request_flow.h"

namespace sluice::services {

// What the methods of the service share; outlives every call.
struct OipShared {
  OipShared(DoorContext d, const CallGuard& g) : doors(std::move(d)), guard(g), statistics(doors.clock) {}
  const DoorContext doors;
  const CallGuard& guard;
  const FieldLimits limits;
  OipStatistics statistics;
};

// Thread-safety: Cancel from any thread; Take, Arm and the accessors from one thread at a time. Held by shared_ptr: the
// flow keeps a reference until it has answered.
class OipRun : public std::enable_shared_from_this<OipRun> {
 public:
  OipRun(OipRequest request, OipShared& shared) : request_(std::move(request)), shared_(shared) {}

  // Decodes the ranges and hands over. `wake` runs once, inline or on any thread, without a lock: Take has something.
  void Start(const CallContext& call, std::function<void()> wake);

  enum class Got { kNothing, kPart, kEnd, kError };
  // What came since the last Take, encoded into `response` for kPart and kEnd; kError: see status(). Nothing follows
  // kEnd and kError; after kNothing and kPart call Arm.
  Got Take(inference::ModelInferResponse& response);
  // `wake` runs once when Take has something again. After kNothing or kPart only.
  void Arm(std::function<void()> wake);
  // Ends it within an engine step; `wake` still runs when it is due. Idempotent.
  void Cancel() ABSL_LOCKS_EXCLUDED(mu_);

  const OipRequest& request() const { return request_; }
  const FlowInfo& info() const { return info_; }
  const absl::Status& status() const { return status_; }
  int tokens_emitted() const { return tokens_emitted_; }  // in the parts that Take gave

 private:
  void StartGeneration(InferenceRequest request, std::function<void()> wake);
  void StartEmbedding(InferenceRequest request, std::function<void()> wake);
  void Keep(std::shared_ptr<FlowTicket> ticket) ABSL_LOCKS_EXCLUDED(mu_);
  Got TakeTokens(inference::ModelInferResponse& response);
  void RecordOnce(bool success, const engine::GenerationSummary* summary) ABSL_LOCKS_EXCLUDED(mu_);
  Got End(const absl::Status& status, const engine::GenerationSummary* summary) ABSL_LOCKS_EXCLUDED(mu_);

  const OipRequest request_;
  OipShared& shared_;
  MonoTime arrival_{};
  OipChunk chunk_;          // not yet sent
  int chunk_tokens_ = 0;    // in chunk_
  int tokens_emitted_ = 0;  // before it
  // Written before the first wake, read after it.
  FlowInfo info_;
  absl::Status status_;
  OpenedStream opened_;
  std::vector<float> embedding_;
  int prompt_tokens_ = 0;

  Mutex mu_;                                                 // never held while calling out
  std::shared_ptr<FlowTicket> ticket_ ABSL_GUARDED_BY(mu_);  // dropped at the end: the flow may refer to this run
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool recorded_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace sluice::services
