#include "engine/scheduler/engine_core.h"

#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/scheduler/core_harness.h"

namespace sluice::engine {
namespace {

using Result = EngineCore::StepResult;

const std::string kLong(200, 'x');

TEST(EngineCoreTest, GeneratesUpToMaxTokens) {
  CoreHarness h;
  auto c = h.Submit(h.Make("hello", 10));
  ASSERT_TRUE(h.Finish(c));
  EXPECT_EQ(c.summary.reason, FinishReason::kLength);
  EXPECT_EQ(c.tokens.size(), 10U);
  EXPECT_EQ(c.summary.prompt_tokens, 5);
  EXPECT_EQ(c.summary.output_tokens, 10);
  EXPECT_EQ(h.core.Step(), Result::kIdle);
}

TEST(EngineCoreTest, OutputDoesNotDependOnCompanyChunkingOrPipeline) {
  CoreHarness h({}, {.idle_prefill_tokens = 7});
  std::vector<CoreHarness::Client> clients;
  std::vector<std::string> prompts;
  for (int i = 0; i < 20; ++i) {
    prompts.push_back("shared beginning of every prompt, then number " + std::to_string(i * 37));
    clients.push_back(h.Submit(h.Make(prompts.back(), 25, i % 2 == 0 ? BaselinePolicy() : TtftPolicy({}))));
  }
  for (auto& c : clients) ASSERT_TRUE(h.Finish(c));
  for (size_t i = 0; i < clients.size(); ++i) EXPECT_EQ(clients[i].tokens, Alone(prompts[i], 25)) << prompts[i];
}

TEST(EngineCoreTest, TtftReusesACommonPrefixAndBaselineDoesNot) {
  CoreHarness h;
  auto first = h.Submit(h.Make(kLong + "a", 4, TtftPolicy({})));
  ASSERT_TRUE(h.Finish(first));
  auto second = h.Submit(h.Make(kLong + "b", 4, TtftPolicy({})));
  ASSERT_TRUE(h.Finish(second));
  EXPECT_EQ(first.summary.cached_tokens, 0);
  EXPECT_EQ(second.summary.cached_tokens, 200);
  auto baseline = h.Submit(h.Make(kLong + "b", 4));
  ASSERT_TRUE(h.Finish(baseline));
  EXPECT_EQ(baseline.summary.cached_tokens, 0);
  EXPECT_EQ(baseline.tokens, second.tokens);
}

TEST(EngineCoreTest, PrefixesAreNotSharedAcrossSalts) {
  CoreHarness h;
  auto first = h.Submit(h.Make(kLong, 4, TtftPolicy({})));
  ASSERT_TRUE(h.Finish(first));
  Generation other = h.Make(kLong, 4, TtftPolicy({}));
  other.cache_salt = "another tenant";
  auto second = h.Submit(std::move(other));
  ASSERT_TRUE(h.Finish(second));
  EXPECT_EQ(second.summary.cached_tokens, 0);
}

// Ten identical prompts at once: the prefix is computed once, nine copies follow.
TEST(EngineCoreTest, IdenticalPrefillsInFlightAreComputedOnce) {
  CoreHarness h({}, {.min_prefill_tokens = 32, .idle_prefill_tokens = 32});
  std::vector<CoreHarness::Client> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(h.Submit(h.Make(kLong, 5, TtftPolicy({}))));
  int cached = 0;
  for (auto& c : clients) {
    ASSERT_TRUE(h.Finish(c));
    cached += c.summary.cached_tokens;
    EXPECT_EQ(c.tokens, clients[0].tokens);
  }
  EXPECT_GE(cached, 9 * (199 - TtftPolicy({}).min_reuse_tokens));
}

TEST(EngineCoreTest, CancelledAndExpiredWorkLeavesWithinOneStep) {
  CoreHarness h({.geometry = {.slots = 1, .slot_context = 1024}});
  auto running = h.Submit(h.Make("one", 1000));
  Generation expiring = h.Make("two", 10);
  expiring.deadline = h.clock.Now() + std::chrono::milliseconds(50);
  auto waiting = h.Submit(std::move(expiring));
  for (int i = 0; i < 5; ++i) h.core.Step();
  h.clock.Advance(std::chrono::milliseconds(60));
  h.core.Step();
  waiting.Read();
  ASSERT_TRUE(waiting.finished);
  EXPECT_EQ(waiting.summary.reason, FinishReason::kDeadline);
  EXPECT_EQ(ReasonOf(waiting.summary.status), "DEADLINE_IN_QUEUE");
  EXPECT_EQ(waiting.summary.output_tokens, 0);
  running.stream->Cancel();
  h.core.Step();
  running.Read();
  ASSERT_TRUE(running.finished);
  EXPECT_EQ(running.summary.reason, FinishReason::kCancelled);
  EXPECT_EQ(h.core.Status().running, 0);
  EXPECT_EQ(h.core.Status().orphaned, 0);
}

TEST(EngineCoreTest, AnUrgentPromptIsComputedFirstUntilOthersHaveWaitedLong) {
  SchedulerOptions options;
  options.idle_prefill_tokens = 16;
  options.min_prefill_tokens = 1;
  options.promote_after = std::chrono::seconds(1);
  CoreHarness h({.prefill_row_cost = FromMillis(1)}, options);
  const auto submit = [&h](const std::string& prompt, int priority) {
    Generation g = h.Make(prompt + std::string(40, 'p'), 1, TtftPolicy({}));
    g.priority = priority;
    return h.Submit(std::move(g));
  };
  auto batch = submit("batch", 2);
  auto urgent = submit("urgent", 0);
  ASSERT_TRUE(h.Finish(urgent));
  batch.Read();
  EXPECT_FALSE(batch.finished);

  h.clock.Advance(std::chrono::seconds(2));
  auto newcomer = submit("newcomer is longer", 0);
  ASSERT_TRUE(h.Finish(newcomer));
  batch.Read();
  EXPECT_TRUE(batch.finished) << "two promotions made it as urgent, and it is shorter";
}

TEST(EngineCoreTest, APromptThatMissesItsTimeIsNotComputed) {
  SchedulerOptions options;
  options.idle_prefill_tokens = 50;
  options.min_prefill_tokens = 1;
  CoreHarness h({.prefill_row_cost = FromMillis(1)}, options);
  const auto submit = [&h](int tokens, int by_ms) {
    Generation g = h.Make(std::string(tokens, 'a' + tokens % 20), 1);
    g.first_token_by = h.clock.Now() + std::chrono::milliseconds(by_ms);
    return h.Submit(std::move(g));
  };
  auto first = submit(200, 250);
  auto begun = submit(80, 285);      // begins in time, and is late in the end because of the small one
  auto hopeless = submit(100, 320);  // could begin at 250, and would be late
  auto small = submit(30, 320);      // behind it, and can make it
  for (auto* client : {&first, &begun, &small}) {
    EXPECT_TRUE(h.Finish(*client));
    EXPECT_EQ(client->summary.reason, FinishReason::kLength);
  }
  EXPECT_GT(begun.summary.ttft, std::chrono::milliseconds(285));
  h.clock.Advance(std::chrono::milliseconds(20));
  h.core.Step();
  hopeless.Read();
  ASSERT_TRUE(hopeless.finished);
  EXPECT_EQ(hopeless.summary.reason, FinishReason::kDeadline);
  EXPECT_EQ(ReasonOf(hopeless.summary.status), "TTFT_UNREACHABLE");
  EXPECT_EQ(hopeless.summary.prefill, Duration::zero());
}

TEST(EngineCoreTest, AnEngineWithNothingElseToDoComputesWhatItThinksLate) {
  SchedulerOptions options;
  options.idle_prefill_tokens = 50;
  options.min_prefill_tokens = 1;
  CoreHarness h({.prefill_row_cost = FromMillis(1)}, options);
  auto measured = h.Submit(h.Make(std::string(50, 's'), 1));
  ASSERT_TRUE(h.Finish(measured));
  Generation g = h.Make(std::string(100, 'x'), 1);
  g.first_token_by = h.clock.Now() + std::chrono::milliseconds(90);
  auto client = h.Submit(std::move(g));
  ASSERT_TRUE(h.Finish(client));
  EXPECT_EQ(client.summary.reason, FinishReason::kLength);
  EXPECT_EQ(client.summary.ttft, std::chrono::milliseconds(100));
}

TEST(EngineCoreTest, ThePrefillRateIsThatOfFullSteps) {
  SchedulerOptions options;
  options.idle_prefill_tokens = 50;
  options.min_prefill_tokens = 1;
  CoreHarness h({.step_cost = FromMillis(10), .prefill_row_cost = FromMillis(1)}, options);
  const auto rate = [&h](const std::string& prompt) {
    auto client = h.Submit(h.Make(prompt, 1));
    EXPECT_TRUE(h.Finish(client));
    return h.core.Status().prefill_tokens_per_second;
  };
  EXPECT_EQ(rate("tiny"), 0) << "says nothing about the speed";
  EXPECT_NEAR(rate(std::string(100, 'x')), 50 / 0.060, 1);
  EXPECT_NEAR(rate("tiny, too"), 50 / 0.060, 1);
}

TEST(EngineCoreTest, ASlowReaderPausesItsStreamOnlyAndIsEndedInTheEnd) {
  CoreHarness h({.step_cost = std::chrono::milliseconds(10)}, {.slow_reader_timeout = std::chrono::seconds(1)});
  auto slow = h.Submit(h.Make("slow", 500), /*buffer=*/4);
  auto quick = h.Submit(h.Make("quick", 50));
  ASSERT_TRUE(h.Finish(quick));
  EXPECT_EQ(h.core.Status().paused, 1);
  EXPECT_EQ(h.core.Step(), Result::kBlocked);
  slow.Read();  // reads late: goes on where it stopped
  EXPECT_EQ(h.core.Step(), Result::kComputed);
  h.core.Step();
  for (int i = 0; i < 5; ++i) h.core.Step();
  h.clock.Advance(std::chrono::seconds(2));
  h.core.Step();
  slow.Read();
  ASSERT_TRUE(slow.finished);
  EXPECT_EQ(ReasonOf(slow.summary.status), "SLOW_READER");
  const auto expected = Alone("slow", 500);
  EXPECT_TRUE(std::equal(slow.tokens.begin(), slow.tokens.end(), expected.begin()));
}

TEST(EngineCoreTest, StopStringsEndAcrossTokensAndAreNotSent) {
  CoreHarness probe;
  auto full = probe.Submit(probe.Make("stop test", 60));
  ASSERT_TRUE(probe.Finish(full));
  const std::string stop = full.text.substr(full.text.size() / 2, 5);
  CoreHarness h;
  Generation g = h.Make("stop test", 60);
  g.stop_strings = {stop};
  auto c = h.Submit(std::move(g));
  ASSERT_TRUE(h.Finish(c));
  EXPECT_EQ(c.summary.reason, FinishReason::kStop);
  EXPECT_EQ(c.summary.stop_string, stop);
  EXPECT_EQ(c.text, full.text.substr(0, full.text.find(stop)));
}

TEST(EngineCoreTest, EndOfGenerationStopsUnlessIgnored) {
  const SyntheticOptions options{.natural_length_max = 8};
  CoreHarness h(options);
  auto c = h.Submit(h.Make("ends by itself", 500));
  ASSERT_TRUE(h.Finish(c));
  EXPECT_EQ(c.summary.reason, FinishReason::kStop);
  EXPECT_LT(c.summary.output_tokens, 500);
  Generation g = h.Make("ends by itself", 500);
  g.ignore_eos = true;
  auto on = h.Submit(std::move(g));
  ASSERT_TRUE(h.Finish(on));
  EXPECT_EQ(on.summary.reason, FinishReason::kLength);
}

// Every backend call fails once, one after the other: each time the failure is reported, nothing leaks, and the engine
// serves the next request as if nothing had happened.
TEST(EngineCoreTest, EveryBackendFailureIsContained) {
  const auto expected = Alone(kLong + "after", 6);
  for (uint64_t fail_at = 0; fail_at < 60; ++fail_at) {
    SyntheticOptions options;
    options.inject_fault = [fail_at](uint64_t call) {
      return call == fail_at ? absl::InternalError("injected") : absl::OkStatus();
    };
    CoreHarness h(options, {.idle_prefill_tokens = 64});
    std::vector<CoreHarness::Client> clients;
    for (int i = 0; i < 4; ++i) clients.push_back(h.Submit(h.Make(kLong + std::to_string(i), 8, TtftPolicy({}))));
    for (auto& c : clients) {
      ASSERT_TRUE(h.Finish(c)) << "call " << fail_at;
      if (c.summary.reason == FinishReason::kError) {
        EXPECT_EQ(ReasonOf(c.summary.status), "ENGINE_STEP_FAILED");
      }
    }
    EXPECT_EQ(h.core.Status().running, 0);
    EXPECT_EQ(h.core.Status().orphaned, 0);
    auto after = h.Submit(h.Make(kLong + "after", 6, TtftPolicy({})));
    ASSERT_TRUE(h.Finish(after));
    if (after.summary.reason == FinishReason::kLength) {
      EXPECT_EQ(after.tokens, expected) << "call " << fail_at;
    }
  }
}

// DESIGN: a long prompt never freezes running streams, and prefill always progresses.
TEST(EngineCoreTest, ALongPromptStretchesStepsButDoesNotFreezeStreams) {
  CoreHarness h({.geometry = {.slots = 8, .slot_context = 8192},
                 .step_cost = std::chrono::milliseconds(4),
                 .decode_row_cost = std::chrono::milliseconds(2),
                 .prefill_row_cost = std::chrono::milliseconds(1)},
                {.min_prefill_tokens = 8});
  std::vector<CoreHarness::Client> runners;
  for (int i = 0; i < 4; ++i) runners.push_back(h.Submit(h.Make("runner " + std::to_string(i), 2000)));
  Duration quiet{};
  for (int i = 0; i < 200; ++i) {
    const MonoTime before = h.clock.Now();
    h.core.Step();
    quiet = h.clock.Now() - before;
    for (auto& r : runners) r.Read();
  }
  auto longer = h.Submit(h.Make(std::string(4000, 'y'), 1));
  Duration worst{};
  int steps = 0;
  while (!longer.finished && ++steps < 2000) {
    const MonoTime before = h.clock.Now();
    h.core.Step();
    worst = std::max(worst, h.clock.Now() - before);
    longer.Read();
    for (auto& r : runners) r.Read();
  }
  EXPECT_TRUE(longer.finished);
  EXPECT_LE(ToMillis(worst), 3 * ToMillis(quiet));
}

}  // namespace
}  // namespace sluice::engine
