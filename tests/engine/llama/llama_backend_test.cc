#include <algorithm>
#include <filesystem>
#include <numeric>
#include <thread>

#include "gmock/gmock.h"
#include "tests/engine/llama/llama_test_support.h"

namespace sluice::engine::test {
namespace {

using sluice::test::IsOk;
using sluice::test::StatusIs;
using testing::HasSubstr;

using LlamaBackendTest = LlamaTest;

TEST_F(LlamaBackendTest, FactsDescribeTheModel) {
  const ModelFacts& facts = backend_->facts();
  EXPECT_EQ(facts.architecture, "llama");
  EXPECT_EQ(facts.file_type, "Q8_0");
  EXPECT_EQ(facts.layer_count, 30);
  EXPECT_EQ(facts.embedding_size, 576);
  EXPECT_EQ(facts.vocab_size, 49152);
  EXPECT_EQ(facts.kv_bytes_per_token, 30u * 3 * 64 * 2 * 2);  // layers, KV heads, head size, K and V, f16
  EXPECT_GT(facts.parameter_count, 130'000'000u);
  EXPECT_GT(facts.weight_bytes, 130'000'000u);
  EXPECT_TRUE(backend_->capabilities().copy_prefix);
  EXPECT_TRUE(backend_->capabilities().truncate);
  EXPECT_FALSE(backend_->capabilities().copy_is_free);
  EXPECT_EQ(backend_->capabilities().max_batch_tokens, 128);
}

TEST_F(LlamaBackendTest, KnowsTheCapitalOfFrance) {
  EXPECT_THAT(Text(Continue(0, 0, Tokens(capital_), 8).tokens), HasSubstr("Paris"));
}

TEST_F(LlamaBackendTest, ChunkedPrefillEqualsOneShot) {
  const std::vector<TokenId> prompt = Tokens(story_);
  ASSERT_GT(prompt.size(), 30u);
  const Generated whole = Continue(0, 0, prompt, 16);
  ExpectSame(whole, Continue(1, 0, prompt, 16, /*chunk=*/7));
  ExpectSame(whole, Continue(2, 0, prompt, 16, /*chunk=*/1));
}

TEST_F(LlamaBackendTest, MixedStepWithGapsAndUnsortedSequencesEqualsAlone) {
  const std::vector<TokenId> capital = Tokens(capital_), story = Tokens(story_);
  const Generated alone_capital = Continue(0, 0, capital, 8);
  const Generated alone_story = Continue(1, 0, story, 8);
  ASSERT_THAT(backend_->Truncate(0, 0), IsOk());
  ASSERT_THAT(backend_->Truncate(1, 0), IsOk());

  // Sequence 3 before 0, a gap between them, prefill beside prefill and decode beside decode.
  Generated together_capital, together_story;
  std::vector<TokenId> next_story = story, next_capital = capital;
  int story_length = 0, capital_length = 0;
  for (int step = 0; step < 8; ++step) {
    std::vector<BatchRow> rows;
    Append(rows, 3, story_length, next_story);
    const int story_row = static_cast<int>(rows.size()) - 1;
    Append(rows, 0, capital_length, next_capital);
    ASSERT_THAT(backend_->Decode(rows), IsOk());
    const auto story_best = Best(backend_->Logits(story_row));
    const auto capital_best = Best(backend_->Logits(static_cast<int>(rows.size()) - 1));
    together_story.tokens.push_back(story_best.first);
    together_story.margins.push_back(story_best.second);
    together_capital.tokens.push_back(capital_best.first);
    together_capital.margins.push_back(capital_best.second);
    story_length += static_cast<int>(next_story.size());
    capital_length += static_cast<int>(next_capital.size());
    next_story = {story_best.first};
    next_capital = {capital_best.first};
  }
  ExpectSame(alone_story, together_story);
  ExpectSame(alone_capital, together_capital);
}

// Sequences with holes between them are moved next to each other; nobody may notice, idle ones included.
TEST_F(LlamaBackendTest, IdleSequencesSurviveTheMovesOfRunningOnes) {
  const std::vector<TokenId> story = Tokens(story_), capital = Tokens(capital_);
  const Generated expected_story = Continue(0, 0, story, 6);
  const Generated expected_capital = Continue(1, 0, capital, 6);
  ASSERT_THAT(backend_->Truncate(0, 0), IsOk());
  ASSERT_THAT(backend_->Truncate(1, 0), IsOk());

  const std::vector<TokenId> story_head(story.begin(), story.end() - 1),
      capital_head(capital.begin(), capital.end() - 1);
  for (SequenceId s : {0, 1, 2, 3}) Feed(s, 0, s % 2 == 0 ? story_head : capital_head);
  const int story_at = static_cast<int>(story_head.size()), capital_at = static_cast<int>(capital_head.size());
  ASSERT_THAT(
      backend_->Decode(std::vector<BatchRow>{{story.back(), story_at, 0, true}, {story.back(), story_at, 2, true}}),
      IsOk());
  ASSERT_THAT(backend_->Decode(
                  std::vector<BatchRow>{{capital.back(), capital_at, 3, true}, {story.back(), story_at + 1, 0, true}}),
              IsOk());
  ASSERT_THAT(backend_->Truncate(0, story_at), IsOk());
  ASSERT_THAT(backend_->Truncate(2, story_at), IsOk());
  ASSERT_THAT(backend_->Truncate(3, capital_at), IsOk());
  ExpectSame(expected_capital, Continue(1, capital_at, {capital.back()}, 6));
  ExpectSame(expected_story, Continue(2, story_at, {story.back()}, 6));
  ExpectSame(expected_capital, Continue(3, capital_at, {capital.back()}, 6));
  ExpectSame(expected_story, Continue(0, story_at, {story.back()}, 6));
}

TEST_F(LlamaBackendTest, CopyPrefixOfARunningSequenceEqualsScratch) {
  const std::vector<TokenId> story = Tokens(story_), capital = Tokens(capital_);
  constexpr int kShared = 20;
  const std::vector<TokenId> tail(story.begin() + kShared, story.end());
  const Generated expected = Continue(0, 0, story, 12);
  const int source_length = static_cast<int>(story.size()) + 11;

  Feed(2, 0, capital);  // what the destination held is dropped
  ASSERT_THAT(backend_->CopyPrefix(0, 2, kShared), IsOk());
  ExpectSame(expected, Continue(2, kShared, tail, 12));

  // The source goes on as if nothing had happened, then disappears before the copy is used.
  Feed(0, source_length, {expected.tokens.back()});
  ASSERT_THAT(backend_->CopyPrefix(0, 1, kShared), IsOk());
  ASSERT_THAT(backend_->Truncate(0, 0), IsOk());
  Feed(0, 0, capital);
  ExpectSame(expected, Continue(1, kShared, tail, 12));

  // A copy of a copy, saved and overwritten before any decode in between.
  ASSERT_THAT(backend_->CopyPrefix(1, 3, kShared), IsOk());
  const std::vector<uint8_t> saved = backend_->Save(3).value();
  ASSERT_THAT(backend_->CopyPrefix(0, 3, 3), IsOk());
  ASSERT_THAT(backend_->Restore(3, saved), IsOk());
  ExpectSame(expected, Continue(3, kShared, tail, 12));
}

TEST_F(LlamaBackendTest, TruncateThenContinueEqualsScratch) {
  const std::vector<TokenId> story = Tokens(story_);
  const Generated expected = Continue(0, 0, story, 12);
  const int keep = 10;
  ASSERT_THAT(backend_->Truncate(0, keep), IsOk());
  ASSERT_THAT(backend_->Truncate(0, keep + 5), IsOk());  // nothing to drop
  ExpectSame(expected, Continue(0, keep, {story.begin() + keep, story.end()}, 12));
}

TEST_F(LlamaBackendTest, SaveAndRestoreElsewhere) {
  const std::vector<TokenId> story = Tokens(story_);
  const Generated expected = Continue(0, 0, story, 10);
  ASSERT_THAT(backend_->Truncate(0, static_cast<int>(story.size()) - 1), IsOk());
  const std::vector<uint8_t> saved = backend_->Save(0).value();
  ASSERT_THAT(backend_->Truncate(0, 0), IsOk());
  Feed(3, 0, Tokens(capital_));
  ASSERT_THAT(backend_->Restore(3, saved), IsOk());
  ExpectSame(expected, Continue(3, static_cast<int>(story.size()) - 1, {story.back()}, 10));

  ASSERT_THAT(backend_->Restore(3, backend_->Save(1).value()), IsOk());  // an empty sequence
  ExpectSame(expected, Continue(3, 0, story, 10));
}

TEST_F(LlamaBackendTest, RestoreRefusesDamage) {
  Feed(0, 0, Tokens(capital_));
  std::vector<uint8_t> saved = backend_->Save(0).value();
  const std::vector<uint8_t> good = saved;
  saved[saved.size() / 2] ^= 1;
  EXPECT_THAT(backend_->Restore(1, saved), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  saved = good;
  saved.resize(saved.size() - 1);
  EXPECT_THAT(backend_->Restore(1, saved), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  EXPECT_THAT(backend_->Restore(1, std::span(good).first(5)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cut off")));
  saved = good;
  saved[0] ^= 1;
  EXPECT_THAT(backend_->Restore(1, saved), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("another model")));
  EXPECT_THAT(backend_->Restore(1, good), IsOk());
}

TEST_F(LlamaBackendTest, AFullSlotRefusesWithoutChange) {
  const std::vector<TokenId> word = Tokens(" clock");
  const std::vector<TokenId> many(kGeometry.slot_context - 1, word.front());
  Feed(0, 0, many);
  std::vector<BatchRow> rows;
  Append(rows, 1, 0, Tokens(capital_));
  Append(rows, 0, kGeometry.slot_context - 1, {word.front(), word.front()});
  EXPECT_THAT(backend_->Decode(rows), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("256 tokens")));
  rows.pop_back();
  rows.back().want_logits = true;
  EXPECT_THAT(backend_->Decode(rows), IsOk());  // the last token fits, and sequence 1 is still empty
}

TEST_F(LlamaBackendTest, AnUnknownTokenFailsTheStepOnly) {
  const std::vector<BatchRow> rows = {{backend_->facts().vocab_size, 0, 0, true}};
  EXPECT_THAT(backend_->Decode(rows), StatusIs(absl::StatusCode::kInternal, HasSubstr("invalid token")));
  ASSERT_THAT(backend_->Truncate(0, 0), IsOk());
  EXPECT_THAT(Text(Continue(0, 0, Tokens(capital_), 8).tokens), HasSubstr("Paris"));
}

TEST_F(LlamaBackendTest, EmbeddingsMeanSomething) {
  const Generated expected = Continue(0, 0, Tokens(capital_), 6);
  ASSERT_THAT(backend_->Truncate(0, 3), IsOk());
  const auto embed = [&](const char* text) { return backend_->Embed(Tokens(text)).value(); };
  const std::vector<float> cat = embed("The cat sleeps on the sofa."),
                           kitten = embed("A kitten is napping on a couch."),
                           invoice = embed("The invoice is due within thirty days.");
  const auto dot = [](const std::vector<float>& a, const std::vector<float>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  ASSERT_EQ(cat.size(), static_cast<size_t>(backend_->facts().embedding_size));
  EXPECT_NEAR(dot(cat, cat), 1.0, 1e-5);
  EXPECT_GT(dot(cat, kitten), dot(cat, invoice));
  EXPECT_NEAR(dot(cat, embed("The cat sleeps on the sofa.")), 1.0, 1e-4);

  const std::vector<TokenId> word = Tokens(" clock");
  EXPECT_THAT(backend_->Embed(std::vector<TokenId>(64, word.front())), IsOk());
  EXPECT_THAT(backend_->Embed(std::vector<TokenId>(65, word.front())),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 64")));
  EXPECT_THAT(backend_->Embed({}), StatusIs(absl::StatusCode::kInvalidArgument));
  // Sequences are untouched by all that.
  const std::vector<TokenId> capital = Tokens(capital_);
  ExpectSame(expected, Continue(0, 3, {capital.begin() + 3, capital.end()}, 6));
}

// libgomp's threads sleep at every barrier while there are more of them than CPUs, over all models: a token then takes
// half as long again. So a model that was loaded, or has nothing to do, must hold none.
TEST_F(LlamaBackendTest, ComputeThreadsLiveOnlyWhileStepsRun) {
  const auto threads = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator{});
  };
  const auto come_to = [&](std::ptrdiff_t wanted) {  // a thread that was told to end needs a moment
    for (int i = 0; i < 1'000'000 && threads() != wanted; ++i) std::this_thread::yield();
    return threads() == wanted;
  };
  backend_.reset();
  const auto without = threads();
  auto other =
      LoadLlamaBackend({.path = TestModelPath(), .geometry = kGeometry, .threads = 3, .max_batch_tokens = 128});
  ASSERT_THAT(other, IsOk());
  EXPECT_TRUE(come_to(without)) << "after a load there are " << threads() << ", before " << without;
  const std::vector<BatchRow> row = {{.token = 1, .position = 0, .sequence = 0, .want_logits = true}};
  ASSERT_THAT((*other)->Decode(row), IsOk());
  EXPECT_EQ(threads(), without + 2) << "three compute, this thread is one of them";
  (*other)->Rest();
  EXPECT_TRUE(come_to(without)) << "at rest there are " << threads() << ", before " << without;
}

TEST_F(LlamaBackendTest, BrokenContractsAbort) {
  Feed(0, 0, Tokens(capital_));
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(backend_->Decode(std::vector<BatchRow>{{1, 99, 0, true}}).IgnoreError(), "position is not the next");
  EXPECT_DEATH(backend_->CopyPrefix(0, 1, 1000).IgnoreError(), "no such prefix");
  EXPECT_DEATH(backend_->Truncate(4, 0).IgnoreError(), "sequence out of range");
}

}  // namespace
}  // namespace sluice::engine::test
