#include "engine/backend/synthetic_tokenizer.h"

#include <set>

#include "tests/support/status_matchers.h"

namespace sluice::engine {
namespace {

using test::IsOk;
using test::StatusIs;
using testing::ElementsAre;
using testing::HasSubstr;
using T = SyntheticTokenizer;

std::string Join(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens, bool special) {
  std::string text;
  for (const TokenId token : tokens) text += tokenizer.Piece(token, special);
  return text;
}

TEST(SyntheticTokenizerTest, TextSurvivesTheRoundTrip) {
  const T tokenizer(512);
  for (const std::string text : {"", "hello", "é € 😀", "a\nb\tc", "<|im_start|>user<|nope|>"}) {
    for (const bool parse_special : {false, true}) {
      const auto tokens = tokenizer.Tokenize(text, false, parse_special);
      ASSERT_THAT(tokens, IsOk());
      EXPECT_EQ(Join(tokenizer, *tokens, true), text);
    }
  }
}

TEST(SyntheticTokenizerTest, ControlsAreReadOnlyWhenAskedFor) {
  const T tokenizer(512);
  EXPECT_THAT(*tokenizer.Tokenize("a<|im_end|>", true, true), ElementsAre(T::kBos, 'a', T::kTurnEnd));
  EXPECT_EQ(tokenizer.Tokenize("a<|im_end|>", false, false)->size(), 11u) << "a user cannot forge a control token";
  EXPECT_EQ(tokenizer.Piece(T::kTurnEnd, false), "");
  EXPECT_EQ(tokenizer.Piece(T::kTurnEnd, true), "<|im_end|>");
}

TEST(SyntheticTokenizerTest, InvalidUtf8IsRefused) {
  EXPECT_THAT(T(512).Tokenize("a\xFF", false, false), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
}

TEST(SyntheticTokenizerTest, WordsAreReadableAndAllDifferent) {
  const T tokenizer(60'000);
  std::set<std::string> words;
  for (TokenId t = T::kFirstWord; t < tokenizer.vocab_size(); ++t) {
    const std::string word = tokenizer.Piece(t, false);
    ASSERT_EQ(word[0], ' ');
    ASSERT_GE(word.size(), 5u);
    ASSERT_LE(word.size(), 7u);
    ASSERT_TRUE(words.insert(word).second) << word;
  }
  EXPECT_EQ(tokenizer.Piece(-1, true), "");
  EXPECT_EQ(tokenizer.Piece(60'000, true), "");
}

TEST(SyntheticTokenizerTest, OnlyTheTwoEndingsEnd) {
  const T tokenizer(300);
  for (TokenId t = 0; t < 300; ++t) EXPECT_EQ(tokenizer.IsEndOfGeneration(t), t == T::kEos || t == T::kTurnEnd);
}

TEST(SyntheticTokenizerTest, ChatTemplateIsChatMl) {
  const T tokenizer(300);
  EXPECT_EQ(*tokenizer.ApplyChatTemplate({{"system", "Be brief."}, {"user", "Hi"}}),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THAT(tokenizer.ApplyChatTemplate({}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(tokenizer.ApplyChatTemplate({{"robot", "x"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'robot'")));
}

TEST(SyntheticTokenizerDeathTest, TheVocabularyHasALeastSize) { EXPECT_DEATH(T(299), "300"); }

}  // namespace
}  // namespace sluice::engine
