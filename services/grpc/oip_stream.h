// ModelStreamInfer: many requests over one stream, each answered part by part.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "inference/grpc_service.grpc.pb.h"
#include "services/grpc/oip_run.h"

namespace sluice::services {

inline constexpr size_t kMaxRunsPerStream = 64;

// One stream. gRPC calls OnReadDone, OnWriteDone and OnCancel from its threads, the engine wakes runs from its own;
// what they share is under one lock, never held over Start*, Finish, or anything of a run. Backpressure: parts are
// taken from a run only when they can be written, so a slow reader fills the run's TokenStream and pauses its sequence;
// a request beyond kMaxRunsPerStream is not read until another one has ended. Lifetime: kept by itself until OnDone,
// and by each wake-up that is still to come.
class OipStream final
    : public grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>,
      public std::enable_shared_from_this<OipStream> {
 public:
  // For the handler to return. A call that the guard refuses ends at once.
  static OipStream* Open(OipShared& shared, grpc::CallbackServerContext& context);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // A request being answered; also one whose error is still to be written.
  struct Entry {
    std::string id, model;        // as the client sent them
    CallContext call;             // counts as an open call while it is here; an idle stream does not hold up a drain
    std::shared_ptr<OipRun> run;  // null: `status` is the answer
    absl::Status status;
    bool empty_final_due = false;  // everything else is written
    bool ended = false;            // the response being written is its last
  };
  using EntryPtr = std::shared_ptr<Entry>;

  OipStream(OipShared& shared, grpc::CallbackServerContext& context, std::string request_id)
      : shared_(shared), context_(context), request_id_(std::move(request_id)) {}

  void BeginRequest();
  void ReadNext() ABSL_LOCKS_EXCLUDED(mu_);
  void Wake(const EntryPtr& entry) ABSL_LOCKS_EXCLUDED(mu_);
  void Pump() ABSL_LOCKS_EXCLUDED(mu_);
  bool EncodeNext(Entry& entry);
  void EncodeError(Entry& entry, const absl::Status& status);
  void Arm(const EntryPtr& entry);
  void FinishIfIdle() ABSL_LOCKS_EXCLUDED(mu_);

  OipShared& shared_;
  grpc::CallbackServerContext& context_;
  const std::string request_id_;                  // of the stream; its requests add -1, -2, ...
  uint64_t requests_ = 0;                         // reading side only
  inference::ModelInferRequest request_;          // being read, or just read
  inference::ModelStreamInferResponse response_;  // belongs to whoever set writing_
  std::shared_ptr<OipStream> self_;

  Mutex mu_;
  std::set<EntryPtr> entries_ ABSL_GUARDED_BY(mu_);  // not yet answered to the end; at most kMaxRunsPerStream
  std::deque<EntryPtr> ready_ ABSL_GUARDED_BY(mu_);  // of those, with something to write; served in turn
  bool reading_ ABSL_GUARDED_BY(mu_) = false;        // a read is under way
  bool half_closed_ ABSL_GUARDED_BY(mu_) = false;
  EntryPtr current_ ABSL_GUARDED_BY(mu_);      // whose response is being written
  bool writing_ ABSL_GUARDED_BY(mu_) = false;  // a response is being encoded or written
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace sluice::services
