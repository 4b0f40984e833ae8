#include "engine/llama/llama_tokenizer.h"

#include <fmt/format.h>

#include <exception>
#include <limits>

#include "base/status.h"
#include "base/strings.h"
#include "chat.h"

namespace sluice::engine {

struct LlamaTokenizer::Template {
  common_chat_templates_ptr parsed;
  std::string error;  // why `parsed` is null
};

LlamaTokenizer::LlamaTokenizer(const llama_vocab* vocab) : vocab_(vocab) {}
LlamaTokenizer::~LlamaTokenizer() = default;

absl::StatusOr<std::unique_ptr<LlamaTokenizer>> LlamaTokenizer::Create(const llama_model& model) {
  std::unique_ptr<LlamaTokenizer> tokenizer(new LlamaTokenizer(llama_model_get_vocab(&model)));
  SLUICE_RETURN_IF_ERROR(tokenizer->ReadVocabulary());
  tokenizer->ReadTemplate(model);
  return tokenizer;
}

absl::Status LlamaTokenizer::ReadVocabulary() try {
  const int size = llama_vocab_n_tokens(vocab_);
  if (size <= 0) return absl::InvalidArgumentError("the model has no vocabulary");
  entries_.resize(static_cast<size_t>(size));
  std::string buffer(256, '\0');
  const auto piece = [&](TokenId token, bool special) {
    int n = llama_token_to_piece(vocab_, token, buffer.data(), static_cast<int>(buffer.size()), 0, special);
    if (n < 0) {
      buffer.resize(static_cast<size_t>(-n));
      n = llama_token_to_piece(vocab_, token, buffer.data(), static_cast<int>(buffer.size()), 0, special);
    }
    return buffer.substr(0, n > 0 ? static_cast<size_t>(n) : 0);
  };
  for (TokenId token = 0; token < size; ++token) {
    Entry& entry = entries_[static_cast<size_t>(token)];
    entry.piece = piece(token, true);
    entry.hidden = !entry.piece.empty() && piece(token, false).empty();
    entry.ends_generation = llama_vocab_is_eog(vocab_, token);
  }
  return absl::OkStatus();
} catch (const std::exception& e) {
  return absl::InvalidArgumentError(ToAbsl(fmt::format("the model's vocabulary is broken: {}", e.what())));
}

void LlamaTokenizer::ReadTemplate(const llama_model& model) {
  // llama-common would fall back to ChatML: a guess that the caller should make knowingly.
  if (llama_model_chat_template(&model, nullptr) == nullptr) return;
  template_ = std::make_unique<Template>();
  try {
    template_->parsed = common_chat_templates_init(&model, "");
  } catch (const std::exception& e) {
    template_->error = e.what();
  }
}

absl::StatusOr<std::vector<TokenId>> LlamaTokenizer::Tokenize(std::string_view text, bool add_special,
                                                              bool parse_special) const try {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  constexpr size_t kMaxBytes = std::numeric_limits<int32_t>::max() / 2;
  if (text.size() > kMaxBytes) return absl::InvalidArgumentError("the text is too long to tokenize");
  std::vector<TokenId> tokens(text.size() / 2 + 16);
  const auto tokenize = [&] {
    return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), add_special, parse_special);
  };
  int32_t n = tokenize();
  if (n < 0 && n != std::numeric_limits<int32_t>::min()) {
    tokens.resize(static_cast<size_t>(-n));
    n = tokenize();
  }
  if (n < 0) return absl::InvalidArgumentError("the text cannot be tokenized");
  tokens.resize(static_cast<size_t>(n));
  return tokens;
} catch (const std::exception& e) {
  return absl::InvalidArgumentError(ToAbsl(fmt::format("the text cannot be tokenized: {}", e.what())));
}

std::string LlamaTokenizer::Piece(TokenId token, bool special) const {
  if (token < 0 || token >= vocab_size()) return "";
  const Entry& entry = entries_[static_cast<size_t>(token)];
  return entry.hidden && !special ? "" : entry.piece;
}

bool LlamaTokenizer::IsEndOfGeneration(TokenId token) const {
  return token >= 0 && token < vocab_size() && entries_[static_cast<size_t>(token)].ends_generation;
}

bool LlamaTokenizer::has_chat_template() const { return template_ != nullptr; }

absl::StatusOr<std::string> LlamaTokenizer::ApplyChatTemplate(const std::vector<ChatMessage>& messages) const {
  if (template_ == nullptr) return absl::FailedPreconditionError("the model has no chat template");
  if (template_->parsed == nullptr) {
    return absl::FailedPreconditionError(
        ToAbsl(fmt::format("the model's chat template cannot be used: {}", template_->error)));
  }
  try {
    common_chat_templates_inputs inputs;
    // Without tools only the prompt matters; deriving a parser for the model's answers would cost 7 times the
    // rendering.
    inputs.force_pure_content = true;
    for (const ChatMessage& message : messages) {
      common_chat_msg& to = inputs.messages.emplace_back();
      to.role = message.role;
      to.content = message.content;
    }
    return common_chat_templates_apply(template_->parsed.get(), inputs).prompt;
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(
        ToAbsl(fmt::format("the model's chat template refuses the messages: {}", e.what())));
  }
}

}  // namespace sluice::engine
