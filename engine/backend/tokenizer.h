// Text to tokens and back, for one model. Part of the backend border.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::engine {

using TokenId = int32_t;

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", "tool"
  std::string content;  // UTF-8
};

// Thread-safety: thread-safe, immutable after construction. Never blocks on the engine.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // `add_special`: add BOS/EOS as the model wants. `parse_special`: read "<|im_start|>" and the like as control
  // tokens; only for text that the server made (chat templates), never for a user's raw prompt.
  // INVALID_ARGUMENT: not UTF-8.
  virtual absl::StatusOr<std::vector<TokenId>> Tokenize(std::string_view text, bool add_special,
                                                        bool parse_special) const = 0;

  // The bytes of one token; may be part of a UTF-8 character. Control tokens give "" unless `special`.
  virtual std::string Piece(TokenId token, bool special) const = 0;

  // True for tokens that end a generation (EOS, end of turn).
  virtual bool IsEndOfGeneration(TokenId token) const = 0;

  // The model's own template applied to a conversation, ending where the assistant's turn begins.
  // FAILED_PRECONDITION: the model has no chat template. INVALID_ARGUMENT: the template refuses the messages.
  virtual absl::StatusOr<std::string> ApplyChatTemplate(const std::vector<ChatMessage>& messages) const = 0;

  virtual bool has_chat_template() const = 0;
  virtual int vocab_size() const = 0;
};

}  // namespace sluice::engine
