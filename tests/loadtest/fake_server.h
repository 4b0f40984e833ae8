// A calibrated server behind the native gRPC door: known delays, known stalls, known failures.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "loadtest/event_loop.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::loadtest {

struct FakeOptions {
  std::function<double(std::mt19937_64&)> ttft_ms = [](auto&) { return 1.0; };
  std::function<double(std::mt19937_64&)> gap_ms = [](auto&) { return 1.0; };
  std::string pipeline = "baseline";
  int fail_every = 0;  // every n-th request ends with `failure`; 0: none
  grpc::StatusCode failure = grpc::StatusCode::RESOURCE_EXHAUSTED;
};

// Real gRPC on a free loopback port; delays come from one timer thread, and what they really were is kept.
class FakeServer {
 public:
  explicit FakeServer(FakeOptions options);
  ~FakeServer();

  std::string url() const { return "grpc://127.0.0.1:" + std::to_string(port_); }
  // Between these moments (on the server's clock, from its start) nothing is sent: everything waits for the end.
  void StallBetween(Duration from, Duration to);
  Duration Elapsed() const { return clock_.Now() - start_; }
  // Of every request so far: arrival to first token, and every gap, as the server made them, in ms.
  std::vector<double> TtftsMs();
  std::vector<double> GapsMs();
  int64_t requests() const { return requests_.load(); }

 private:
  class Service;
  class Stream;
  MonoTime Due(MonoTime when);

  const FakeOptions options_;
  const SystemClock clock_;
  const MonoTime start_;
  std::atomic<int64_t> requests_{0};
  Mutex mutex_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_){20};
  MonoTime stall_from_ ABSL_GUARDED_BY(mutex_){}, stall_to_ ABSL_GUARDED_BY(mutex_){};
  std::vector<double> ttfts_ms_ ABSL_GUARDED_BY(mutex_), gaps_ms_ ABSL_GUARDED_BY(mutex_);
  EventLoop loop_;
  std::atomic<bool> stop_{false};
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::thread timers_;
};

}  // namespace sluice::loadtest
