// The vocabulary of the synthetic model: one token a byte, a few controls, then short made-up words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/tokenizer.h"

namespace sluice::engine {

// Text becomes bytes, so that every UTF-8 text has exactly one tokenization; only the model produces word tokens
// (" bado", " kelu" ...). The chat template is ChatML's. Thread-safety as Tokenizer.
class SyntheticTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kBos = 256;
  static constexpr TokenId kEos = 257;
  static constexpr TokenId kTurnStart = 258;  // <|im_start|>
  static constexpr TokenId kTurnEnd = 259;    // <|im_end|>, ends a generation like kEos
  static constexpr TokenId kPad = 260;
  static constexpr TokenId kFirstWord = 261;

  // Requires: vocab_size of at least 300.
  explicit SyntheticTokenizer(int vocab_size);

  absl::StatusOr<std::vector<TokenId>> Tokenize(std::string_view text, bool add_special,
                                                bool parse_special) const override;
  std::string Piece(TokenId token, bool special) const override;
  bool IsEndOfGeneration(TokenId token) const override { return token == kEos || token == kTurnEnd; }
  absl::StatusOr<std::string> ApplyChatTemplate(const std::vector<ChatMessage>& messages) const override;
  bool has_chat_template() const override { return true; }
  int vocab_size() const override { return vocab_size_; }

 private:
  const int vocab_size_;
};

}  // namespace sluice::engine
