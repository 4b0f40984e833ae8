#include "engine/scheduler/token_stream.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

TokenEvent Event(TokenId t) { return {.sampled = {.token = t}, .text = std::to_string(t)}; }

TEST(TokenStreamTest, ABatchHoldsEverythingThatWaits) {
  TokenStream stream(4);
  EXPECT_TRUE(stream.Take().tokens.empty());
  stream.Push(Event(1));
  stream.Push(Event(2));
  const TokenStream::Batch batch = stream.Take();
  ASSERT_EQ(batch.tokens.size(), 2U);
  EXPECT_EQ(batch.tokens[1].text, "2");
  EXPECT_FALSE(batch.finished);
}

TEST(TokenStreamTest, FullStreamsHaveNoRoomUntilTaken) {
  TokenStream stream(1);
  int woken = 0;
  stream.SetEngineWaker([&] { ++woken; });
  stream.Push(Event(1));
  EXPECT_FALSE(stream.HasRoom());
  stream.Take();
  EXPECT_TRUE(stream.HasRoom());
  EXPECT_EQ(woken, 1);
}

TEST(TokenStreamTest, FinishTellsTheObserverFirstThenTheReader) {
  TokenStream stream(4);
  std::string order;
  stream.SetFinishObserver([&](const GenerationSummary&) { order += "observer "; });
  stream.NotifyWhenReady([&] { order += "reader"; });
  stream.Finish("tail", {.reason = FinishReason::kLength, .output_tokens = 3});
  EXPECT_EQ(order, "observer reader");
  const TokenStream::Batch batch = stream.Take();
  EXPECT_TRUE(batch.finished);
  EXPECT_EQ(batch.tail_text, "tail");
  EXPECT_EQ(batch.summary.output_tokens, 3);
}

TEST(TokenStreamTest, ReadyRunsInlineWhenSomethingWaits) {
  TokenStream stream(4);
  stream.Push(Event(1));
  bool ready = false;
  stream.NotifyWhenReady([&] { ready = true; });
  EXPECT_TRUE(ready);
}

TEST(TokenStreamTest, CancelWakesTheEngineOnce) {
  TokenStream stream(4);
  int woken = 0;
  stream.SetEngineWaker([&] { ++woken; });
  stream.Cancel();
  stream.Cancel();
  EXPECT_TRUE(stream.cancelled());
  EXPECT_EQ(woken, 1);
}

// Producer and reader on two threads: every token arrives once and in order.
TEST(TokenStreamTest, NothingIsLostBetweenThreads) {
  constexpr int kTokens = 20000;
  TokenStream stream(8);
  std::thread engine([&] {
    for (int i = 0; i < kTokens;) {
      if (!stream.HasRoom()) {
        std::this_thread::yield();
        continue;
      }
      stream.Push(Event(i++));
    }
    stream.Finish("", {});
  });
  int next = 0;
  std::atomic<bool> signalled{false};
  for (bool finished = false; !finished;) {
    stream.NotifyWhenReady([&] { signalled.store(true); });
    while (!signalled.exchange(false)) std::this_thread::yield();
    const TokenStream::Batch batch = stream.Take();
    for (const TokenEvent& e : batch.tokens) ASSERT_EQ(e.sampled.token, next++);
    finished = batch.finished;
  }
  engine.join();
  EXPECT_EQ(next, kTokens);
}

}  // namespace
}  // namespace sluice::engine
