// sluice-bench: drives a running server with N concurrent greedy streams of fixed size and reports tokens/s.
// The first inhabitant of loadtest/; scripts/compare-throughput interleaves it with llama-batched-bench.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "fmt/format.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace {

namespace pb = ::sluice::v1;

struct Options {
  std::string server = "127.0.0.1:8001";
  int streams = 64, prompt_tokens = 128, output_tokens = 32;
};

struct Result {
  bool ok = false;
  std::string error;
  int output_tokens = 0, cached_tokens = 0;
  double ttft_ms = 0;
};

// Prompts of different, arbitrary tokens: nothing to share, nothing to cache.
pb::GenerateRequest MakeRequest(const Options& o, int stream) {
  pb::GenerateRequest request;
  uint64_t state = 0x9E3779B97F4A7C15U * static_cast<uint64_t>(stream + 1);
  for (int i = 0; i < o.prompt_tokens; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    request.mutable_token_ids()->add_ids(static_cast<int32_t>(1000 + (state >> 33) % 40000));
  }
  request.set_max_tokens(o.output_tokens);
  request.set_ignore_eos(true);
  request.mutable_sampling()->set_temperature(0);
  request.set_user(fmt::format("bench-{}", stream));
  return request;
}

Result RunStream(pb::InferenceService::Stub& stub, const pb::GenerateRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
  Result result;
  auto reader = stub.Generate(&context, request);
  pb::GenerateResponse message;
  while (reader->Read(&message)) {
    if (!message.has_finish()) continue;
    result.output_tokens = message.finish().usage().output_tokens();
    result.cached_tokens = message.finish().usage().cached_tokens();
    result.ttft_ms = message.finish().timings().ttft_ms();
  }
  const grpc::Status status = reader->Finish();
  result.ok = status.ok();
  result.error = status.error_message();
  return result;
}

int Run(const Options& o) {
  auto stub = pb::InferenceService::NewStub(grpc::CreateChannel(o.server, grpc::InsecureChannelCredentials()));
  std::vector<Result> results(static_cast<size_t>(o.streams));
  std::vector<std::thread> threads;
  const sluice::SystemClock clock;
  const sluice::MonoTime start = clock.Now();
  for (int i = 0; i < o.streams; ++i) {
    threads.emplace_back([&, i] { results[static_cast<size_t>(i)] = RunStream(*stub, MakeRequest(o, i)); });
  }
  for (auto& t : threads) t.join();
  const double seconds = sluice::ToSeconds(clock.Now() - start);
  int tokens = 0, cached = 0, failed = 0;
  double ttft = 0;
  for (const Result& r : results) {
    tokens += r.ok ? o.prompt_tokens + r.output_tokens : 0;
    cached += r.cached_tokens;
    ttft += r.ttft_ms / o.streams;
    if (!r.ok && failed++ == 0) std::fprintf(stderr, "sluice-bench: %s\n", r.error.c_str());
  }
  std::puts(fmt::format(R"({{"tokens_per_second": {:.1f}, "seconds": {:.3f}, "failed": {}, "cached_tokens": {}, )"
                        R"("mean_ttft_ms": {:.1f}}})",
                        tokens / seconds, seconds, failed, cached, ttft)
                .c_str());
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--server") {
      o.server = argv[i + 1];
    } else if (name == "--streams") {
      o.streams = std::atoi(argv[i + 1]);
    } else if (name == "--prompt-tokens") {
      o.prompt_tokens = std::atoi(argv[i + 1]);
    } else if (name == "--output-tokens") {
      o.output_tokens = std::atoi(argv[i + 1]);
    }
  }
  const bool known = argc % 2 == 1 && o.streams > 0 && o.prompt_tokens > 0 && o.output_tokens > 0;
  if (!known) {
    std::fprintf(stderr,
                 "usage: sluice-bench [--server HOST:PORT] [--streams N] [--prompt-tokens N] [--output-tokens N]\n");
    return 2;
  }
  return Run(o);
}
