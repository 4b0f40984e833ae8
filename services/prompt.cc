#include "services/prompt.h"

#include <algorithm>

#include "base/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace sluice::services {
namespace {

using engine::TokenId;

constexpr int kMaxViolationsListed = 8;

absl::StatusOr<std::vector<TokenId>> CheckIds(const std::vector<TokenId>& ids, int vocab_size) {
  if (ids.empty()) return InvalidFields({{"token_ids", "empty; at least one token id is needed"}});
  std::vector<FieldViolation> violations;
  for (size_t i = 0; i < ids.size() && violations.size() < kMaxViolationsListed; ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    violations.push_back(
        {fmt::format("token_ids.ids[{}]", i), fmt::format("got {}; allowed 0 to {}", ids[i], vocab_size - 1)});
  }
  if (!violations.empty()) return InvalidFields(std::move(violations));
  return ids;
}

absl::StatusOr<std::vector<TokenId>> Tokens(const InferenceRequest& request, const engine::LoadedModel& model) {
  const engine::Tokenizer& tokenizer = model.tokenizer();
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&request.input)) {
    return CheckIds(*ids, tokenizer.vocab_size());
  }
  if (const auto* text = std::get_if<std::string>(&request.input)) {
    if (text->empty()) return InvalidFields({{"prompt", "empty; at least one byte is needed"}});
    return tokenizer.Tokenize(*text, /*add_special=*/true, /*parse_special=*/false);
  }
  const auto& messages = std::get<std::vector<engine::ChatMessage>>(request.input);
  if (messages.empty()) return InvalidFields({{"chat.messages", "empty; at least one message is needed"}});
  SLUICE_ASSIGN_OR_RETURN(const std::string text, tokenizer.ApplyChatTemplate(messages));
  return tokenizer.Tokenize(text, /*add_special=*/false, /*parse_special=*/true);
}

}  // namespace

absl::StatusOr<PreparedPrompt> PreparePrompt(const InferenceRequest& request, const engine::LoadedModel& model,
                                             const PromptLimits& limits) {
  std::vector<FieldViolation> violations;
  if (request.max_tokens.has_value() && (*request.max_tokens < 1 || *request.max_tokens > limits.max_tokens_limit)) {
    violations.push_back(
        {"max_tokens", fmt::format("got {}; allowed 1 to {}", *request.max_tokens, limits.max_tokens_limit)});
  }
  if (const int vocab = model.tokenizer().vocab_size(); request.sampling.top_k > vocab) {
    violations.push_back({"sampling.top_k", fmt::format("got {}; allowed 0 to {}", request.sampling.top_k, vocab)});
  }
  if (!violations.empty()) return InvalidFields(std::move(violations));

  PreparedPrompt prepared;
  SLUICE_ASSIGN_OR_RETURN(prepared.tokens, Tokens(request, model));
  const int context = model.geometry().slot_context;
  const int prompt = static_cast<int>(prepared.tokens.size());
  const int wanted = request.max_tokens.value_or(std::clamp(context - prompt, 1, limits.default_max_tokens));
  prepared.max_tokens = wanted;
  if (prompt + wanted <= context) return prepared;
  if (!request.truncate_prompt || wanted >= context) {
    return MakeError(
        Reason::kContextExceeded,
        fmt::format("prompt of {} tokens + max_tokens {} = {} exceed the model's slot context of {} tokens; "
                    "shorten one of them{}",
                    prompt, wanted, prompt + wanted, context, wanted < context ? " or set truncate_prompt" : ""),
        {.metadata = {{"prompt_tokens", std::to_string(prompt)},
                      {"max_tokens", std::to_string(wanted)},
                      {"slot_context_tokens", std::to_string(context)}}});
  }
  prepared.truncated = prompt + wanted - context;
  prepared.tokens.erase(prepared.tokens.begin(), prepared.tokens.begin() + prepared.truncated);
  return prepared;
}

absl::Status CheckModelAllowed(const Caller& caller, const std::string& model) {
  if (caller.models.empty() || std::find(caller.models.begin(), caller.models.end(), model) != caller.models.end()) {
    return absl::OkStatus();
  }
  return MakeError(Reason::kModelNotAllowed, fmt::format("this key may not use model '{}'; it may use: {}", model,
                                                         fmt::join(caller.models, ", ")));
}

absl::Status CheckMayUse(const engine::ModelPool& models, const Caller& caller, const std::string& name) {
  if (caller.models.empty()) return absl::OkStatus();
  if (!name.empty()) return CheckModelAllowed(caller, name);
  for (const engine::ModelInfo& info : models.List()) {
    if (info.is_default) return CheckModelAllowed(caller, info.spec.name);
  }
  return absl::OkStatus();  // there is none; the pool says so
}

}  // namespace sluice::services
