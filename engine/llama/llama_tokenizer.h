// Tokenizer and chat template of a GGUF file, as libllama and llama-common read them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/tokenizer.h"
#include "llama.h"

namespace sluice::engine {

// Thread-safe, immutable. `model` must outlive it.
class LlamaTokenizer final : public Tokenizer {
 public:
  // Reads the whole vocabulary once, so that Piece() is a table look-up. INVALID_ARGUMENT: a broken vocabulary. A chat
  // template that does not parse is reported by ApplyChatTemplate: such a model can still complete plain prompts.
  static absl::StatusOr<std::unique_ptr<LlamaTokenizer>> Create(const llama_model& model);
  ~LlamaTokenizer() override;

  absl::StatusOr<std::vector<TokenId>> Tokenize(std::string_view text, bool add_special,
                                                bool parse_special) const override;
  std::string Piece(TokenId token, bool special) const override;
  bool IsEndOfGeneration(TokenId token) const override;
  absl::StatusOr<std::string> ApplyChatTemplate(const std::vector<ChatMessage>& messages) const override;
  bool has_chat_template() const override;
  int vocab_size() const override { return static_cast<int>(entries_.size()); }

 private:
  struct Entry {
    std::string piece;    // with control tokens rendered
    bool hidden = false;  // control token: rendered only on demand
    bool ends_generation = false;
  };
  struct Template;

  explicit LlamaTokenizer(const llama_vocab* vocab);
  absl::Status ReadVocabulary();
  void ReadTemplate(const llama_model& model);

  const llama_vocab* vocab_;
  std::vector<Entry> entries_;
  std::unique_ptr<Template> template_;  // null: the model has none
};

}  // namespace sluice::engine
