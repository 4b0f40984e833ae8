#include "tests/loadtest/fake_server.h"

namespace sluice::loadtest {

namespace pb = ::sluice::v1;

class FakeServer::Stream final : public grpc::ServerWriteReactor<pb::GenerateResponse> {
 public:
  Stream(FakeServer& server, int tokens, bool fails) : server_(server), left_(tokens), fails_(fails) {
    arrived_ = last_ = server_.clock_.Now();
    After(server_.options_.ttft_ms);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (left_ == 0) return Finish(grpc::Status::OK);
    After(server_.options_.gap_ms);
  }
  void OnDone() override { delete this; }

 private:
  void After(const std::function<double(std::mt19937_64&)>& delay_ms) {
    MonoTime when = server_.clock_.Now();
    {
      MutexLock lock(server_.mutex_);
      when += FromMillis(delay_ms(server_.random_));
    }
    server_.loop_.At(server_.Due(when), [this] { Send(); });
  }
  void Send() {
    const MonoTime now = server_.clock_.Now();
    {
      MutexLock lock(server_.mutex_);
      (first_ ? server_.ttfts_ms_ : server_.gaps_ms_).push_back(ToMillis(now - last_));
    }
    first_ = false;
    last_ = now;
    if (fails_) return Finish(grpc::Status(server_.options_.failure, "the fake server was told to"));
    message_.Clear();
    message_.set_text("token ");
    if (--left_ == 0) {
      pb::Finish* finish = message_.mutable_finish();
      finish->set_reason("length");
      finish->set_pipeline(server_.options_.pipeline);
      finish->mutable_usage()->set_prompt_tokens(10);
      finish->mutable_usage()->set_output_tokens(++sent_);
    }
    ++sent_;
    StartWrite(&message_);
  }

  FakeServer& server_;
  int left_, sent_ = 0;
  const bool fails_;
  bool first_ = true;
  MonoTime arrived_, last_;
  pb::GenerateResponse message_;
};

class FakeServer::Service final : public pb::InferenceService::CallbackService {
 public:
  explicit Service(FakeServer& server) : server_(server) {}
  grpc::ServerWriteReactor<pb::GenerateResponse>* Generate(grpc::CallbackServerContext* /*context*/,
                                                           const pb::GenerateRequest* request) override {
    const int64_t number = ++server_.requests_;
    const int every = server_.options_.fail_every;
    return new Stream(server_, request->max_tokens(), every > 0 && number % every == 0);
  }
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const pb::ListModelsRequest* /*request*/,
                                       pb::ListModelsResponse* response) override {
    pb::Model* model = response->add_models();
    model->set_name("fake");
    model->set_state("ready");
    model->set_is_default(true);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  FakeServer& server_;
};

FakeServer::FakeServer(FakeOptions options)
    : options_(std::move(options)), start_(clock_.Now()), loop_(clock_), service_(std::make_unique<Service>(*this)) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  timers_ = std::thread([this] { loop_.Run([this] { return stop_.load(); }); });
}

FakeServer::~FakeServer() {
  server_->Shutdown(std::chrono::system_clock::now());  // calls that wait for a timer still get it
  stop_ = true;
  timers_.join();
}

void FakeServer::StallBetween(Duration from, Duration to) {
  MutexLock lock(mutex_);
  stall_from_ = start_ + from;
  stall_to_ = start_ + to;
}

MonoTime FakeServer::Due(MonoTime when) {
  MutexLock lock(mutex_);
  return when >= stall_from_ && when < stall_to_ ? stall_to_ : when;
}

std::vector<double> FakeServer::TtftsMs() {
  MutexLock lock(mutex_);
  return ttfts_ms_;
}

std::vector<double> FakeServer::GapsMs() {
  MutexLock lock(mutex_);
  return gaps_ms_;
}

}  // namespace sluice::loadtest
