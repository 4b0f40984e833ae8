// What the edge costs: CPU time of a Sluice server beside that of a bare gRPC server which streams the same messages.
//
// Fair, because
// - each server is a process, and only its CPU time counts (all threads, user and system): the client, the same for
//   both, costs neither of them anything;
// - they take turns, round by round, so that a noisy machine disturbs both alike;
// - the bare server also has one thread that makes a token for every stream at each step and starts the write, as an
//   engine thread does; both write one message a token and a last one with `finish`, about equally many bytes
//   (counters *_bytes_per_token);
// - a token that ends in half a character has no message of its own, so the bare stream that Sluice is compared with
//   (over_bare_us_per_token) has as many messages as Sluice sent: about 6 % fewer than tokens;
// - tokens come at a pace (edge/paced, one step in 2 ms): when they come faster than they can be written, Sluice puts
//   those that wait into one message (counter tokens_per_message), and a stream of tokens would cost less than a stream
//   of messages. edge/flood shows just that, in bare_us_per_token (still a message a token) and sluice_us_per_token.
//
// The difference holds all that Sluice does: gate, admission, breaker, scheduler, greedy sampling from the synthetic
// model's 512 logits, text, metrics, the log line (to /dev/null), trailers, housekeeping every 5 ms.
//
// per_token is the slope between requests of 1 and of 1 + kTokens tokens; per_request is a request of 1 token.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "loadtest/components/edge_process.h"
#include "loadtest/components/measure.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::components {
namespace {

namespace pb = ::sluice::v1;

constexpr int kStreams = 16;        // at once
constexpr int kTokens = 128;        // of a long request, beyond its first
constexpr int kShortRequests = 16;  // one after the other in each stream

struct Totals {
  std::atomic<int64_t> requests{0}, tokens{0}, messages{0}, bytes{0}, failed{0};
};

class Server {
 public:
  Server(const char* kind, int step_us) : process_(EdgeProcess::Start(kind, step_us)) {
    if (process_ == nullptr) return;
    stub_ = pb::InferenceService::NewStub(
        grpc::CreateChannel(fmt::format("127.0.0.1:{}", process_->port()), grpc::InsecureChannelCredentials()));
  }
  bool started() const { return process_ != nullptr; }

  // kStreams clients, each with `requests` requests of `tokens` tokens one after the other. CPU seconds of the server.
  double Round(int requests, int tokens, Totals& totals) {
    const Duration before = process_->CpuTime();
    std::vector<std::thread> clients;
    for (int c = 0; c < kStreams; ++c) {
      clients.emplace_back([&, c] {
        for (int i = 0; i < requests; ++i) Generate(fmt::format("{}-{} tell me of tides", c, i), tokens, totals);
      });
    }
    for (std::thread& client : clients) client.join();
    return ToSeconds(process_->CpuTime() - before);
  }

 private:
  void Generate(const std::string& prompt, int tokens, Totals& totals) {
    pb::GenerateRequest request;
    request.set_prompt(prompt);
    request.set_max_tokens(tokens);
    request.set_ignore_eos(true);
    request.set_user(prompt);
    request.mutable_sampling()->set_temperature(0);
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    pb::GenerateResponse message;
    while (reader->Read(&message)) {
      ++totals.messages;
      totals.bytes += static_cast<int64_t>(message.text().size());
    }
    ++totals.requests;
    totals.tokens += tokens;
    totals.failed += reader->Finish().ok() ? 0 : 1;
  }

  const std::unique_ptr<EdgeProcess> process_;
  std::unique_ptr<pb::InferenceService::Stub> stub_;
};

// One server's share of the result.
struct Account {
  Server server;
  Totals short_totals, long_totals;
  double short_seconds = 0, long_seconds = 0;

  void Run() {
    short_seconds += server.Round(kShortRequests, 1, short_totals);
    long_seconds += server.Round(1, 1 + kTokens, long_totals);
  }
  double PerRequest() const { return short_seconds * 1e6 / static_cast<double>(short_totals.requests); }
  double PerToken() const {
    return (long_seconds * 1e6 / static_cast<double>(long_totals.requests) - PerRequest()) / kTokens;
  }
  double BytesPerToken() const {
    return static_cast<double>(long_totals.bytes) / static_cast<double>(long_totals.tokens);
  }
  // The last message has no token.
  double TokensPerMessage() const {
    return static_cast<double>(long_totals.tokens) / static_cast<double>(long_totals.messages - long_totals.requests);
  }
  bool failed() const { return short_totals.failed + long_totals.failed > 0; }
};

void Edge(benchmark::State& state, int step_us) {
  Account bare{.server = {"bare", step_us}}, sluice{.server = {"sluice", step_us}};
  if (!bare.server.started() || !sluice.server.started()) return Fail(state, "a server did not start");
  Totals warm_up;
  bare.server.Round(4, 4, warm_up);
  sluice.server.Round(4, 4, warm_up);
  for ([[maybe_unused]] auto _ : state) {
    bare.Run();
    sluice.Run();
  }
  if (bare.failed() || sluice.failed()) return Fail(state, "a request failed");
  state.counters["bare_us_per_token"] = bare.PerToken();
  state.counters["sluice_us_per_token"] = sluice.PerToken();
  state.counters["over_bare_us_per_token"] = sluice.PerToken() - bare.PerToken() / sluice.TokensPerMessage();
  state.counters["bare_us_per_request"] = bare.PerRequest();
  state.counters["sluice_us_per_request"] = sluice.PerRequest();
  state.counters["over_bare_us_per_request"] = sluice.PerRequest() - bare.PerRequest();
  state.counters["bare_bytes_per_token"] = bare.BytesPerToken();
  state.counters["sluice_bytes_per_token"] = sluice.BytesPerToken();
  state.counters["tokens_per_message"] = sluice.TokensPerMessage();
  state.SetItemsProcessed(sluice.short_totals.tokens + sluice.long_totals.tokens);
}
BENCHMARK_CAPTURE(Edge, paced, 2000)->Name("edge/paced")->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Edge, flood, 0)->Name("edge/flood")->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice::components
