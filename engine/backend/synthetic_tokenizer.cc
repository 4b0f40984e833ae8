#include "engine/backend/synthetic_tokenizer.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/strings.h"

namespace sluice::engine {
namespace {

// In the order of their ids, from kBos on.
constexpr std::array<std::string_view, 5> kControls = {"<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"};
static_assert(SyntheticTokenizer::kBos + kControls.size() == SyntheticTokenizer::kFirstWord);

// The n-th word: syllables of one consonant and one vowel, the number n in base 75; at least two, so all differ.
std::string Word(int n) {
  constexpr std::string_view kConsonants = "bdfghjklmnprstv";
  constexpr std::string_view kVowels = "aeiou";
  constexpr int kSyllables = static_cast<int>(kConsonants.size() * kVowels.size());
  std::string word = " ";
  for (int i = 0; i < 2 || n > 0; ++i, n /= kSyllables) {
    const int syllable = n % kSyllables;
    word += kConsonants[syllable % kConsonants.size()];
    word += kVowels[syllable / kConsonants.size()];
  }
  return word;
}

}  // namespace

SyntheticTokenizer::SyntheticTokenizer(int vocab_size) : vocab_size_(vocab_size) {
  SLUICE_CHECK(vocab_size >= 300, "bytes, controls and a few words need 300 tokens");
}

absl::StatusOr<std::vector<TokenId>> SyntheticTokenizer::Tokenize(std::string_view text, bool add_special,
                                                                  bool parse_special) const {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() + 1);
  if (add_special) tokens.push_back(kBos);
  while (!text.empty()) {
    if (parse_special && text[0] == '<') {
      const auto control = std::find_if(kControls.begin(), kControls.end(),
                                        [&](std::string_view name) { return text.starts_with(name); });
      if (control != kControls.end()) {
        tokens.push_back(kBos + static_cast<TokenId>(control - kControls.begin()));
        text.remove_prefix(control->size());
        continue;
      }
    }
    tokens.push_back(static_cast<unsigned char>(text[0]));
    text.remove_prefix(1);
  }
  return tokens;
}

std::string SyntheticTokenizer::Piece(TokenId token, bool special) const {
  if (token < 0 || token >= vocab_size_) return "";
  if (token < kBos) return std::string(1, static_cast<char>(token));
  if (token < kFirstWord) return special ? std::string(kControls[token - kBos]) : "";
  return Word(token - kFirstWord);
}

absl::StatusOr<std::string> SyntheticTokenizer::ApplyChatTemplate(const std::vector<ChatMessage>& messages) const {
  if (messages.empty()) return absl::InvalidArgumentError("a conversation needs a message");
  std::string text;
  for (const ChatMessage& m : messages) {
    if (m.role != "system" && m.role != "user" && m.role != "assistant" && m.role != "tool") {
      return absl::InvalidArgumentError(
          ToAbsl("role '" + ReplaceInvalidUtf8(m.role) + "' is unknown; allowed: system, user, assistant, tool"));
    }
    text += "<|im_start|>" + m.role + "\n" + m.content + "<|im_end|>\n";
  }
  return text + "<|im_start|>assistant\n";
}

}  // namespace sluice::engine
