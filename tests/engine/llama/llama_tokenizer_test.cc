#include <thread>

#include "gmock/gmock.h"
#include "tests/engine/llama/llama_test_support.h"

namespace sluice::engine::test {
namespace {

using sluice::test::IsOk;
using sluice::test::StatusIs;
using testing::HasSubstr;

using LlamaTokenizerTest = LlamaTest;

TEST_F(LlamaTokenizerTest, RoundTripsTrickyText) {
  const Tokenizer& tokenizer = backend_->tokenizer();
  for (const std::string text :
       {"", " ", "plain words", "  two  spaces ", "tab\tnewline\n\r\n", "naïve café", "e\xCC\x81 combining",
        "日本語のテキスト", "👩‍👩‍👧‍👦 family, 🇫🇷 flag", "עברית العربية",
        "\xF0\x9F\xA6\x84\xEF\xBF\xBD\xE2\x80\x8B", "int main() { return 0; }", "12345678901234567890", "\x01\x02\x7F",
        "<|im_start|>user"}) {
    const auto tokens = tokenizer.Tokenize(text, false, false);
    ASSERT_THAT(tokens, IsOk()) << text;
    EXPECT_EQ(Text(*tokens), text);
  }
}

TEST_F(LlamaTokenizerTest, RefusesTextThatIsNotUtf8) {
  for (const std::string text : {"\xFF", "abc\xC3", "\xED\xA0\x80", "\xC0\xAF"}) {
    EXPECT_THAT(backend_->tokenizer().Tokenize(text, true, true),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
  }
}

TEST_F(LlamaTokenizerTest, ControlTokensOnlyWhenAskedFor) {
  const Tokenizer& tokenizer = backend_->tokenizer();
  const std::vector<TokenId> parsed = tokenizer.Tokenize("<|im_end|>", false, true).value();
  ASSERT_EQ(parsed.size(), 1u);
  EXPECT_TRUE(tokenizer.IsEndOfGeneration(parsed[0]));
  EXPECT_EQ(tokenizer.Piece(parsed[0], true), "<|im_end|>");
  EXPECT_EQ(tokenizer.Piece(parsed[0], false), "");
  const std::vector<TokenId> raw = tokenizer.Tokenize("<|im_end|>", false, false).value();
  EXPECT_GT(raw.size(), 1u);
  for (TokenId token : raw) EXPECT_FALSE(tokenizer.IsEndOfGeneration(token));
}

TEST_F(LlamaTokenizerTest, TokensOutsideTheVocabularyAreEmpty) {
  const Tokenizer& tokenizer = backend_->tokenizer();
  for (TokenId token : {-1, tokenizer.vocab_size(), 1 << 30}) {
    EXPECT_EQ(tokenizer.Piece(token, true), "");
    EXPECT_FALSE(tokenizer.IsEndOfGeneration(token));
  }
}

TEST_F(LlamaTokenizerTest, LongTextsNeitherCrashNorHang) {
  for (const char unit : {'a', '1', ' ', '?', '\n'}) {
    const std::string text(200'000, unit);
    const auto tokens = backend_->tokenizer().Tokenize(text, false, false);
    ASSERT_THAT(tokens, IsOk());
    EXPECT_EQ(Text(*tokens), text);
  }
}

TEST_F(LlamaTokenizerTest, ChatTemplateIsTheModelsOwn) {
  const Tokenizer& tokenizer = backend_->tokenizer();
  ASSERT_TRUE(tokenizer.has_chat_template());
  EXPECT_EQ(tokenizer.ApplyChatTemplate({{"user", "Hi!"}}).value(),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      tokenizer.ApplyChatTemplate({{"system", "Be brief."}, {"user", "1+1?"}, {"assistant", "2"}, {"user", "Sure?"}})
          .value(),
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2"
      "<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      tokenizer.ApplyChatTemplate({{"system", "s"}, {"user", "{{ 7*7 }} {% raw %}"}}).value(),
      "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n{{ 7*7 }} {% raw %}<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(LlamaTokenizerTest, ThreadsShareIt) {
  const Tokenizer& tokenizer = backend_->tokenizer();
  const std::vector<TokenId> expected = tokenizer.Tokenize(story_, true, false).value();
  const std::string expected_chat = tokenizer.ApplyChatTemplate({{"user", story_}}).value();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        wrong[t] += tokenizer.Tokenize(story_, true, false).value() == expected ? 0 : 1;
        wrong[t] += tokenizer.ApplyChatTemplate({{"user", story_}}).value() == expected_chat ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

}  // namespace
}  // namespace sluice::engine::test
