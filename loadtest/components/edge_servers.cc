#include "loadtest/components/edge_servers.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "engine/backend/synthetic_backend.h"
#include "services/server.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::components {
namespace {

namespace pb = ::sluice::v1;

// Streams one message a token and a last one with `finish`, as Sluice does, and nothing else.
class BareReactor final : public grpc::ServerWriteReactor<pb::GenerateResponse>,
                          public std::enable_shared_from_this<BareReactor> {
 public:
  explicit BareReactor(int tokens) : tokens_(tokens) {
    word_.set_text(" kelu");  // the synthetic model's words have three to seven bytes
    pb::Finish& finish = *finish_.mutable_finish();
    finish.set_reason("length");
    finish.mutable_usage()->set_prompt_tokens(32);
    finish.mutable_usage()->set_output_tokens(tokens);
    finish.mutable_timings()->set_queue_wait_ms(0.125);
    finish.mutable_timings()->set_prefill_ms(1.5);
    finish.mutable_timings()->set_ttft_ms(1.625);
    finish.mutable_timings()->set_total_ms(99.5);
    finish.mutable_timings()->set_tokens_per_second(500.5);
    finish.set_model("default");
    finish.set_pipeline("baseline");
    finish.set_request_id("00112233445566778899aabbccddeeff");
  }

  void Open() { self_ = shared_from_this(); }

  // `count` more tokens are there. On the pacer's thread, or in the handler.
  void Produce(int count) {
    {
      MutexLock lock(mu_);
      produced_ = std::min(produced_ + count, tokens_);
      if (writing_ || written_ == produced_) return;
      writing_ = true;
    }
    WriteNext();
  }

 private:
  // No member is touched after the write began: its end may run on another thread.
  void WriteNext() {
    bool last = false;
    {
      MutexLock lock(mu_);
      last = written_ == tokens_;
      if (!last && written_ == produced_) {
        writing_ = false;
        return;
      }
      ++written_;
    }
    if (last) return StartWriteAndFinish(&finish_, grpc::WriteOptions(), grpc::Status::OK);
    StartWrite(&word_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) return WriteNext();
    Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { const auto last = std::exchange(self_, nullptr); }

  const int tokens_;
  pb::GenerateResponse word_, finish_;
  std::shared_ptr<BareReactor> self_;  // until OnDone
  Mutex mu_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  int written_ ABSL_GUARDED_BY(mu_) = 0, produced_ ABSL_GUARDED_BY(mu_) = 0;
};

// One thread that makes a token for every open stream at each step, in place of an engine thread.
class BareService final : public pb::InferenceService::CallbackService {
 public:
  explicit BareService(Duration step) : step_(step) {
    if (step > Duration::zero()) pacer_ = std::thread([this] { Pace(); });
  }
  ~BareService() override {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    changed_.SignalAll();
    if (pacer_.joinable()) pacer_.join();
  }

  grpc::ServerWriteReactor<pb::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const pb::GenerateRequest* request) override {
    auto reactor = std::make_shared<BareReactor>(request->max_tokens());
    reactor->Open();
    if (step_ == Duration::zero()) {
      reactor->Produce(request->max_tokens());
      return reactor.get();
    }
    grpc::ServerWriteReactor<pb::GenerateResponse>* const raw = reactor.get();
    {
      MutexLock lock(mu_);
      streams_.push_back({std::move(reactor), request->max_tokens()});
    }
    changed_.Signal();
    return raw;
  }

 private:
  struct Stream {
    std::shared_ptr<BareReactor> reactor;
    int left;
  };

  void Pace() {
    std::vector<std::shared_ptr<BareReactor>> due;
    while (true) {
      {
        MutexLock lock(mu_);
        while (!stopping_ && streams_.empty()) changed_.Wait(mu_);
        if (stopping_) return;
        for (Stream& s : streams_) {
          due.push_back(s.reactor);
          --s.left;
        }
        std::erase_if(streams_, [](const Stream& s) { return s.left == 0; });
      }
      std::this_thread::sleep_for(step_);
      for (const auto& reactor : due) reactor->Produce(1);
      due.clear();
    }
  }

  const Duration step_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Stream> streams_ ABSL_GUARDED_BY(mu_);
  std::thread pacer_;
};

void ServeUntilInputEnds(int port) {
  std::printf("%d\n", port);
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}

int ServeBare(Duration step) {
  BareService service(step);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  ServeUntilInputEnds(port);
  server->Shutdown();
  return 0;
}

// Defaults throughout, and the flags as config/feature-flags.yaml has them. Nobody scrapes it.
int ServeSluice(Duration step) {
  const SystemClock clock;
  services::ServerParts parts;
  parts.runtime.server.grpc_address = "127.0.0.1:0";
  parts.runtime.server.metrics_address = "";
  parts.runtime.models.models = {{.name = "default", .path = "synthetic:", .geometry = {}}};
  const auto flag = [](std::string key, std::string parent, bool dry_run) {
    return flags::Flag{.key = std::move(key),
                       .enabled = true,
                       .rollout_bps = flags::kBuckets,
                       .dry_run = dry_run,
                       .parent = std::move(parent),
                       .features = {{"warmup_queue", true}, {"kv_prep", true}}};
  };
  parts.flags[flags::Layer::kFile].flags = {flag("phase5", "", false), flag("ttft_pipeline", "phase5", false),
                                            flag("qos_policy", "phase5", true)};
  parts.probe = [](const std::string&) { return absl::OkStatus(); };
  parts.make_backend = [step](const engine::ModelSpec& spec) -> absl::StatusOr<std::unique_ptr<engine::Backend>> {
    return std::make_unique<engine::SyntheticBackend>(
        engine::SyntheticOptions{.geometry = spec.geometry, .step_cost = step},
        [](Duration d) { std::this_thread::sleep_for(d); });
  };
  auto server = services::Server::Start(std::move(parts), clock);
  if (!server.ok()) {
    LogError("cannot start", {{"error", server.status().ToString()}});
    return 1;
  }
  while ((*server)->state() == "starting") std::this_thread::yield();
  ServeUntilInputEnds((*server)->grpc_port());
  return 0;
}

}  // namespace

int Serve(const char* kind, const char* step_us) {
  const Duration step = std::chrono::microseconds(std::atoi(step_us));
  return std::string_view(kind) == "bare" ? ServeBare(step) : ServeSluice(step);
}

}  // namespace sluice::components
