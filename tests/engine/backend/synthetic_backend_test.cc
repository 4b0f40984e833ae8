#include "engine/backend/synthetic_backend.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/strings.h"
#include "engine/backend/synthetic_tokenizer.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::engine {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using test::StatusIs;
using Tokens = std::vector<TokenId>;

SyntheticOptions Small() {
  SyntheticOptions options;
  options.geometry = {.slots = 4, .slot_context = 256};
  options.max_batch_tokens = 64;
  return options;
}

TokenId Best(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Rows for `tokens` of one sequence from `position` on; only the last asks for logits.
std::vector<BatchRow> Rows(SequenceId sequence, int position, const Tokens& tokens) {
  std::vector<BatchRow> rows;
  for (const TokenId token : tokens) rows.push_back({token, position++, sequence, false});
  rows.back().want_logits = true;
  return rows;
}

// Greedy output of `count` tokens after `prompt`, alone in its batch.
Tokens Generate(Backend& backend, SequenceId sequence, const Tokens& prompt, int count) {
  Tokens output;
  auto rows = Rows(sequence, 0, prompt);
  for (int position = static_cast<int>(prompt.size()); count > 0; --count) {
    EXPECT_THAT(backend.Decode(rows), IsOk());
    output.push_back(Best(backend.Logits(static_cast<int>(rows.size()) - 1)));
    rows = Rows(sequence, position++, {output.back()});
  }
  return output;
}

const Tokens kPrompt = {'h', 'e', 'l', 'l', 'o'};

TEST(SyntheticBackendTest, LogitsDependOnlyOnSeedAndTokens) {
  SyntheticBackend whole(Small(), nullptr);
  ASSERT_THAT(whole.Decode(Rows(0, 0, kPrompt)), IsOk());
  const std::vector<float> want(whole.Logits(4).begin(), whole.Logits(4).end());
  EXPECT_EQ(want.size(), 512u);

  SyntheticBackend chunked(Small(), nullptr);  // other chunks, another slot, in company
  auto rows = Rows(2, 0, {'h', 'e'});
  for (const BatchRow& row : Rows(1, 0, {'x', 'y', 'z'})) rows.push_back(row);
  ASSERT_THAT(chunked.Decode(rows), IsOk());
  rows = Rows(1, 3, {'!'});
  for (const BatchRow& row : Rows(2, 2, {'l', 'l', 'o'})) rows.push_back(row);
  ASSERT_THAT(chunked.Decode(rows), IsOk());
  EXPECT_TRUE(std::equal(want.begin(), want.end(), chunked.Logits(3).begin()));
  EXPECT_FALSE(std::equal(want.begin(), want.end(), chunked.Logits(0).begin()));

  SyntheticOptions other = Small();
  other.seed = 2;
  SyntheticBackend reseeded(other, nullptr);
  ASSERT_THAT(reseeded.Decode(Rows(0, 0, kPrompt)), IsOk());
  EXPECT_NE(Best(reseeded.Logits(4)), Best(want));
}

TEST(SyntheticBackendTest, EveryEarlierTokenMatters) {
  SyntheticBackend backend(Small(), nullptr);
  const Tokens want = Generate(backend, 0, kPrompt, 20);
  for (size_t i = 0; i < kPrompt.size(); ++i) {
    Tokens changed = kPrompt;
    changed[i] ^= 1;
    ASSERT_THAT(backend.Truncate(1, 0), IsOk());
    EXPECT_NE(Generate(backend, 1, changed, 20), want);
  }
  Tokens swapped = {'e', 'h', 'l', 'l', 'o'};
  ASSERT_THAT(backend.Truncate(1, 0), IsOk());
  EXPECT_NE(Generate(backend, 1, swapped, 20), want);
}

TEST(SyntheticBackendTest, LogitsOfEarlierStepsDoNotShineThrough) {
  SyntheticBackend backend(Small(), nullptr);
  for (int i = 0; i < 50; ++i) {
    ASSERT_THAT(backend.Decode(Rows(0, i, {i})), IsOk());
    const auto logits = backend.Logits(0);
    EXPECT_EQ(std::count_if(logits.begin(), logits.end(), [](float x) { return x > 0; }), 4);
  }
}

TEST(SyntheticBackendTest, CopiesAndTruncationsAreExact) {
  SyntheticBackend backend(Small(), nullptr);
  const Tokens want = Generate(backend, 0, kPrompt, 30);
  Generate(backend, 1, {'j', 'u', 'n', 'k'}, 9);
  ASSERT_THAT(backend.CopyPrefix(0, 1, 3), IsOk());
  ASSERT_THAT(backend.Decode(Rows(1, 3, {'l', 'o'})), IsOk());
  EXPECT_EQ(Best(backend.Logits(1)), want[0]);
  ASSERT_THAT(backend.Truncate(0, 5), IsOk());
  ASSERT_THAT(backend.Decode(Rows(0, 5, {want[0]})), IsOk());
  EXPECT_EQ(Best(backend.Logits(0)), want[1]);
  ASSERT_THAT(backend.Truncate(0, 200), IsOk());  // nothing there: nothing to drop
  ASSERT_THAT(backend.Decode(Rows(0, 6, {want[1]})), IsOk());
  EXPECT_EQ(Best(backend.Logits(0)), want[2]);
  ASSERT_THAT(backend.Truncate(0, 0), IsOk());
  EXPECT_EQ(Generate(backend, 0, kPrompt, 30), want);
}

TEST(SyntheticBackendTest, SaveAndRestoreMoveASequence) {
  SyntheticBackend backend(Small(), nullptr);
  const Tokens want = Generate(backend, 0, kPrompt, 2);
  ASSERT_THAT(backend.Truncate(0, 5), IsOk());
  auto bytes = backend.Save(0);
  ASSERT_THAT(bytes, IsOk());
  SyntheticBackend twin(Small(), nullptr);
  ASSERT_THAT(twin.Restore(3, *bytes), IsOk());
  ASSERT_THAT(twin.Decode(Rows(3, 5, {want[0]})), IsOk());
  EXPECT_EQ(Best(twin.Logits(0)), want[1]);

  const auto refused = [&](std::span<const uint8_t> data) {
    EXPECT_THAT(twin.Restore(3, data), StatusIs(absl::StatusCode::kDataLoss));
  };
  for (size_t i = 0; i < bytes->size(); ++i) {
    std::vector<uint8_t> damaged = *bytes;
    damaged[i] ^= 1;
    refused(damaged);
    refused(std::span(*bytes).first(i));
  }
  SyntheticOptions other = Small();
  other.seed = 9;
  EXPECT_THAT(SyntheticBackend(other, nullptr).Restore(0, *bytes), StatusIs(absl::StatusCode::kDataLoss));
  ASSERT_THAT(twin.Decode(Rows(3, 6, {want[1]})), IsOk()) << "a refused restore changed nothing";
}

TEST(SyntheticBackendTest, OutputIsWordsAndNowAndThenACharacterOfSeveralTokens) {
  SyntheticOptions options = Small();
  options.geometry.slot_context = 4000;
  SyntheticBackend backend(options, nullptr);
  const Tokens output = Generate(backend, 0, kPrompt, 3000);
  std::string text;
  int words = 0;
  for (const TokenId token : output) {
    text += backend.tokenizer().Piece(token, false);
    words += token >= SyntheticTokenizer::kFirstWord ? 1 : 0;
    ASSERT_FALSE(backend.tokenizer().IsEndOfGeneration(token)) << "natural_length_max is 0";
  }
  EXPECT_TRUE(IsValidUtf8(text.substr(0, CompleteUtf8Prefix(text))));
  for (const char* character : {"é", "€", "😀"}) EXPECT_NE(text.find(character), std::string::npos) << character;
  EXPECT_GT(words, 2500);
  EXPECT_LT(words, 3000);
}

TEST(SyntheticBackendTest, GenerationsEndWithinTheNaturalLength) {
  for (const int max : {1, 2, 3, 16, 40}) {
    SyntheticOptions options = Small();
    options.natural_length_max = max;
    SyntheticBackend backend(options, nullptr);
    std::mt19937_64 random(max);
    int longest = 0;
    int shortest = max;
    for (int round = 0; round < 300; ++round) {
      Tokens prompt;
      for (size_t n = 1 + random() % 60; n > 0; --n) prompt.push_back(static_cast<TokenId>(random() % 128));
      ASSERT_THAT(backend.Truncate(0, 0), IsOk());
      const Tokens output = Generate(backend, 0, prompt, max + 1);
      const auto end = std::find_if(output.begin(), output.end(),
                                    [&](TokenId t) { return backend.tokenizer().IsEndOfGeneration(t); });
      const int length = static_cast<int>(end - output.begin());
      ASSERT_LE(length, max);
      longest = std::max(longest, length);
      shortest = std::min(shortest, length);
    }
    EXPECT_GE(longest, max / 2) << "lengths vary with the prompt";
    EXPECT_LE(shortest, max / 8);
  }
}

TEST(SyntheticBackendTest, StepsCostWhatTheOptionsSay) {
  test::ManualClock clock;
  SyntheticOptions options = Small();
  options.step_cost = milliseconds(100);
  options.decode_row_cost = milliseconds(10);
  options.prefill_row_cost = milliseconds(1);
  options.copy_cost_per_token = milliseconds(2);
  SyntheticBackend backend(options, [&](Duration d) { clock.Advance(d); });
  const auto spent = [&](auto call) {
    const MonoTime before = clock.Now();
    call();
    return clock.Now() - before;
  };
  EXPECT_EQ(spent([&] { EXPECT_THAT(backend.Decode(Rows(0, 0, kPrompt)), IsOk()); }), milliseconds(105));
  auto rows = Rows(0, 5, {'a'});
  for (const BatchRow& row : Rows(1, 0, {'b'})) rows.push_back(row);
  for (const BatchRow& row : Rows(2, 0, {'c', 'd', 'e'})) rows.push_back(row);
  EXPECT_EQ(spent([&] { EXPECT_THAT(backend.Decode(rows), IsOk()); }), milliseconds(123));
  EXPECT_EQ(spent([&] { EXPECT_THAT(backend.CopyPrefix(0, 3, 4), IsOk()); }), milliseconds(8));
  EXPECT_EQ(spent([&] { EXPECT_THAT(backend.Truncate(3, 0), IsOk()); }), milliseconds(0));
  EXPECT_FALSE(backend.capabilities().copy_is_free);
  EXPECT_TRUE(SyntheticBackend(Small(), nullptr).capabilities().copy_is_free);
}

TEST(SyntheticBackendTest, InjectedFaultsAreReturnedAndCounted) {
  SyntheticOptions options = Small();
  std::vector<uint64_t> calls;
  options.inject_fault = [&](uint64_t index) {
    calls.push_back(index);
    return index == 1 ? absl::ResourceExhaustedError("no room") : absl::OkStatus();
  };
  SyntheticBackend backend(options, nullptr);
  ASSERT_THAT(backend.Decode(Rows(0, 0, {'a', 'b'})), IsOk());
  EXPECT_THAT(backend.Decode(Rows(0, 2, {'c'})), StatusIs(absl::StatusCode::kResourceExhausted, "no room"));
  EXPECT_THAT(backend.Decode(Rows(0, 2, {'c'})), IsOk()) << "RESOURCE_EXHAUSTED changed nothing";
  ASSERT_THAT(backend.CopyPrefix(0, 1, 2), IsOk());
  ASSERT_THAT(backend.Truncate(1, 1), IsOk());
  EXPECT_EQ(calls, (std::vector<uint64_t>{0, 1, 2, 3, 4}));
}

TEST(SyntheticBackendDeathTest, AFailedStepLeavesItsSequencesToBeReleased) {
  SyntheticOptions options = Small();
  options.inject_fault = [](uint64_t index) { return index == 1 ? absl::InternalError("boom") : absl::OkStatus(); };
  SyntheticBackend backend(options, nullptr);
  ASSERT_THAT(backend.Decode(Rows(0, 0, {'a', 'b'})), IsOk());
  EXPECT_THAT(backend.Decode(Rows(0, 2, {'c'})), StatusIs(absl::StatusCode::kInternal));
  EXPECT_DEATH((void)backend.Logits(0), "last successful Decode");
  EXPECT_DEATH((void)backend.Decode(Rows(0, 2, {'c'})), "released");
  EXPECT_DEATH((void)backend.CopyPrefix(0, 1, 1), "released");
  EXPECT_DEATH((void)backend.Truncate(0, 1), "released");
  EXPECT_DEATH((void)backend.Save(0), "released");
  ASSERT_THAT(backend.Truncate(0, 0), IsOk());
  EXPECT_THAT(backend.Decode(Rows(0, 0, {'a'})), IsOk());
}

TEST(SyntheticBackendDeathTest, BrokenContractsAbort) {
  SyntheticBackend backend(Small(), nullptr);
  const auto decode = [&](const std::vector<BatchRow>& rows) { (void)backend.Decode(rows); };
  ASSERT_THAT(backend.Decode(Rows(0, 0, {'a', 'b'})), IsOk());
  EXPECT_DEATH(decode({}), "a step has rows");
  EXPECT_DEATH(decode(Rows(1, 0, Tokens(65, 'x'))), "max_batch_tokens");
  EXPECT_DEATH(decode(Rows(4, 0, {'x'})), "within the slots");
  EXPECT_DEATH(decode(Rows(-1, 0, {'x'})), "within the slots");
  EXPECT_DEATH(decode(Rows(1, 0, {512})), "vocabulary");
  EXPECT_DEATH(decode(Rows(1, 0, {-1})), "vocabulary");
  EXPECT_DEATH(decode(Rows(0, 1, {'x'})), "continue the sequence");
  EXPECT_DEATH(decode(Rows(0, 3, {'x'})), "continue the sequence");
  EXPECT_DEATH(decode({{'x', 2, 0}, {'y', 2, 0}}), "continue the sequence");
  EXPECT_DEATH(decode({{'x', 2, 0}, {'y', 0, 1}, {'z', 3, 0}}), "contiguous");
  EXPECT_DEATH((void)backend.Logits(0), "asked for logits");
  EXPECT_DEATH((void)backend.Logits(2), "last successful");
  EXPECT_DEATH((void)backend.CopyPrefix(0, 0, 1), "onto itself");
  EXPECT_DEATH((void)backend.CopyPrefix(0, 1, 3), "holds that many");
  EXPECT_DEATH((void)backend.Truncate(0, -1), "negative");
  for (int i = 2; i < 256; ++i) ASSERT_THAT(backend.Decode(Rows(0, i, {'x'})), IsOk());
  EXPECT_DEATH(decode(Rows(0, 256, {'x'})), "fits its slot");
}

TEST(SyntheticBackendTest, EmbeddingsAreUnitVectorsOfTheTokens) {
  SyntheticBackend backend(Small(), nullptr);
  const auto a = backend.Embed(kPrompt);
  ASSERT_THAT(a, IsOk());
  EXPECT_EQ(a->size(), 64u);
  double squares = 0;
  for (const float x : *a) squares += static_cast<double>(x) * x;
  EXPECT_NEAR(squares, 1.0, 1e-5);
  EXPECT_EQ(*backend.Embed(kPrompt), *a);
  EXPECT_NE(*backend.Embed(Tokens{'h', 'e'}), *a);
  EXPECT_THAT(backend.Embed(Tokens{}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(backend.Embed(Tokens(256, 'x')), IsOk());
  EXPECT_THAT(backend.Embed(Tokens(257, 'x')),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("got 257 tokens")));
}

}  // namespace
}  // namespace sluice::engine
