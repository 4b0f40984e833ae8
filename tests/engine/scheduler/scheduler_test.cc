#include "engine/scheduler/scheduler.h"

#include <atomic>
#include <thread>

#include "base/metrics.h"
#include "base/status.h"
#include "engine/backend/synthetic_backend.h"
#include "engine/pipelines/pipelines.h"
#include "engine/scheduler/compute_gate.h"
#include "engine/scheduler/scheduler_probe.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace sluice::engine {
namespace {

using test::IsOk;
using test::StatusIs;

class SchedulerTest : public testing::Test {
 protected:
  std::unique_ptr<Scheduler> Make(SyntheticOptions backend = {}, SchedulerOptions options = {}) {
    return std::make_unique<Scheduler>(std::make_unique<SyntheticBackend>(backend, nullptr), options, clock_, metrics_,
                                       &gate_);
  }
  Generation Prompt(int length, int max_tokens) {
    return {.request_id = "r",
            .prompt = std::vector<TokenId>(length, 'a'),
            .max_tokens = max_tokens,
            .submitted = clock_.Now(),
            .policy = TtftPolicy({})};
  }
  // Blocks until the stream ends.
  static TokenStream::Batch ReadAll(TokenStream& stream) {
    std::atomic<bool> ready{false};
    for (int tokens = 0;;) {
      stream.NotifyWhenReady([&] {
        ready = true;
        ready.notify_one();
      });
      ready.wait(false);
      ready = false;
      TokenStream::Batch batch = stream.Take();
      tokens += static_cast<int>(batch.tokens.size());
      if (batch.finished) return batch;
    }
  }

  SystemClock clock_;
  MetricsRegistry registry_;
  EngineMetrics metrics_{registry_};
  ComputeGate gate_;
};

TEST_F(SchedulerTest, ServesManyThreadsAtOnce) {
  auto scheduler = Make();
  std::atomic<int> finished{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        auto stream = scheduler->Submit(Prompt(20 + t, 10), [&](const GenerationSummary&) { ++finished; });
        ASSERT_THAT(stream, IsOk());
        if (i % 5 == 4) (*stream)->Cancel();
        const TokenStream::Batch end = ReadAll(**stream);
        EXPECT_TRUE(end.summary.reason == FinishReason::kLength || i % 5 == 4);
      }
    });
  }
  for (auto& c : clients) c.join();
  EXPECT_EQ(finished, 160);
}

TEST_F(SchedulerTest, RefusesWhatCannotRun) {
  auto scheduler = Make({.geometry = {.slots = 2, .slot_context = 100}});
  EXPECT_THAT(scheduler->Submit(Prompt(60, 41)).status(),
              StatusIs(absl::StatusCode::kOutOfRange, testing::HasSubstr("60 prompt tokens and max_tokens 41")));
  Generation late = Prompt(10, 10);
  late.deadline = clock_.Now() - std::chrono::seconds(1);
  EXPECT_THAT(scheduler->Submit(late).status(), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(SchedulerTest, AFullQueueSaysWhenToComeBack) {
  auto scheduler = Make({.geometry = {.slots = 1, .slot_context = 1000}}, {.max_queue = 2, .stream_buffer_tokens = 1});
  std::vector<std::shared_ptr<TokenStream>> held;
  absl::Status refused;
  for (int i = 0; i < 10 && refused.ok(); ++i) {
    auto stream = scheduler->Submit(Prompt(10, 900));
    if (stream.ok()) {
      held.push_back(*stream);
    } else {
      refused = stream.status();
    }
  }
  EXPECT_EQ(ReasonOf(refused), "QUEUE_FULL");
  EXPECT_TRUE(GetErrorDetails(refused).retry_after.has_value());
  EXPECT_LE(held.size(), 4U);
}

TEST_F(SchedulerTest, StoppingEndsEveryStreamAndItsBellIsHarmlessLater) {
  auto scheduler = Make({.geometry = {.slots = 2, .slot_context = 1000}}, {.stream_buffer_tokens = 1});
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int i = 0; i < 6; ++i) streams.push_back(*scheduler->Submit(Prompt(10, 900)));
  scheduler.reset();
  for (auto& s : streams) {
    const TokenStream::Batch end = ReadAll(*s);
    EXPECT_EQ(ReasonOf(end.summary.status), "MODEL_UNLOADING");
    s->Cancel();
  }
}

TEST_F(SchedulerTest, EmbeddingsRunBetweenSteps) {
  auto scheduler = Make();
  std::atomic<int> done{0};
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(scheduler->SubmitEmbedding({'a', 'b'}, kInfiniteFuture,
                                           [&](absl::StatusOr<std::vector<float>> e) {
                                             EXPECT_THAT(e, IsOk());
                                             ++done;
                                             done.notify_one();
                                           }),
                IsOk());
  }
  for (int n = done; n < 10; n = done) done.wait(n);
}

TEST(ComputeGateTest, ServesInOrderAndExcludes) {
  ComputeGate gate;
  int inside = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        gate.Enter();
        EXPECT_EQ(++inside, 1);
        --inside;
        gate.Leave();
      }
    });
  }
  for (auto& t : threads) t.join();
}

}  // namespace
}  // namespace sluice::engine
