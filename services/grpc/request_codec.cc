#include "services/grpc/request_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "base/status.h"
#include "base/strings.h"

namespace sluice::services {
namespace {

constexpr size_t kMaxListed = 8;  // violations named of one list
constexpr int64_t kMaxDeadlineMs = 86'400'000;
constexpr std::string_view kRoles[] = {"system", "user", "assistant", "tool"};

// For error texts: quoted, and never all of a long value.
std::string Show(std::string_view value) {
  constexpr size_t kShown = 32;
  if (value.size() <= kShown) return fmt::format("\"{}\"", ReplaceInvalidUtf8(value));
  const std::string_view kept = value.substr(0, CompleteUtf8Prefix(value.substr(0, kShown)));
  return fmt::format("\"{}...\" ({} bytes)", ReplaceInvalidUtf8(kept), value.size());
}

// Collects what is wrong with a message.
class Checker {
 public:
  void Violate(std::string field, std::string description) {
    violations_.push_back({std::move(field), std::move(description)});
  }

  // NaN is in no range.
  template <typename T>
  void Range(std::string_view field, T value, T low, T high, std::string_view allowed) {
    if (value >= low && value <= high) return;
    Violate(std::string(field), fmt::format("got {}; allowed {}", value, allowed));
  }

  void Utf8(std::string_view field, std::string_view value) {
    if (!IsValidUtf8(value)) Violate(std::string(field), "not valid UTF-8");
  }

  void Text(const std::string& field, std::string_view value) {
    if (value.empty()) return Violate(field, "empty; at least one byte is needed");
    Utf8(field, value);
  }

  void Id(std::string_view field, std::string_view value, size_t max_bytes) {
    if (value.size() > max_bytes) {
      return Violate(std::string(field), fmt::format("got {} bytes; allowed up to {}", value.size(), max_bytes));
    }
    Utf8(field, value);
  }

  // It goes into a trailer, and into other people's logs.
  void RequestId(std::string_view value, size_t max_bytes) {
    const bool printable = std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
    if (!printable) return Violate("request_id", "got a byte that is not printable; allowed is printable ASCII");
    Id("request_id", value, max_bytes);
  }

  template <typename List>
  bool Count(std::string_view field, const List& list, int low, int high) {
    if (list.size() >= low && list.size() <= high) return true;
    Violate(std::string(field), fmt::format("got {}; allowed {} to {}", list.size(), low, high));
    return false;
  }

  // Calls check(index) for every entry of a list, until enough of it is wrong.
  template <typename Check>
  void Each(int size, Check check) {
    const size_t before = violations_.size();
    for (int i = 0; i < size && violations_.size() - before < kMaxListed; ++i) check(i);
  }

  absl::Status Done() { return violations_.empty() ? absl::OkStatus() : InvalidFields(std::move(violations_)); }

 private:
  std::vector<FieldViolation> violations_;
};

// The message's value, else the header's; checked under the name of whichever it was.
std::string IdOrHeader(std::string_view field, const std::string& value, const char* header, const CallContext& call,
                       size_t max_bytes, Checker& check) {
  const auto it = call.headers.find(header);
  const bool use_header = value.empty() && it != call.headers.end();
  const std::string& chosen = use_header ? it->second : value;
  check.Id(use_header ? fmt::format("header {}", header) : std::string(field), chosen, max_bytes);
  return chosen;
}

qos::QosClass DecodeClass(v1::PriorityClass asked, const CallContext& call, Checker& check) {
  switch (asked) {
    case v1::PRIORITY_CLASS_UNSPECIFIED:
      break;
    case v1::PRIORITY_CLASS_SYSTEM:
      return qos::QosClass::kSystem;
    case v1::PRIORITY_CLASS_INTERACTIVE:
      return qos::QosClass::kInteractive;
    case v1::PRIORITY_CLASS_STANDARD:
      return qos::QosClass::kStandard;
    case v1::PRIORITY_CLASS_BATCH:
      return qos::QosClass::kBatch;
    default:
      check.Violate("priority_class", fmt::format("got {}; allowed 0 (standard), 1 (system), 2 (interactive), "
                                                  "3 (standard), 4 (batch)",
                                                  static_cast<int>(asked)));
      return qos::QosClass::kStandard;
  }
  const auto header = call.headers.find("x-sluice-class");
  if (header == call.headers.end()) return qos::QosClass::kStandard;
  const std::optional<qos::QosClass> parsed = qos::ParseQosClass(header->second);
  if (!parsed.has_value()) {
    check.Violate("header x-sluice-class",
                  fmt::format("got {}; allowed system, interactive, standard, batch", Show(header->second)));
  }
  return parsed.value_or(qos::QosClass::kStandard);
}

engine::SamplingParams DecodeSampling(const v1::Sampling& m, Checker& check) {
  engine::SamplingParams s;
  s.temperature = m.has_temperature() ? m.temperature() : 0.8F;
  s.top_p = m.has_top_p() ? m.top_p() : 0.95F;
  s.top_k = m.has_top_k() ? m.top_k() : 40;
  s.min_p = m.has_min_p() ? m.min_p() : 0.05F;
  s.repetition_penalty = m.has_repetition_penalty() ? m.repetition_penalty() : 1.0F;
  s.presence_penalty = m.presence_penalty();
  s.frequency_penalty = m.frequency_penalty();
  if (m.has_seed()) s.seed = m.seed();
  s.want_logprobs = m.has_logprobs();
  s.logprobs = m.logprobs();

  constexpr float kAboveZero = std::numeric_limits<float>::denorm_min();
  constexpr float kBelowOne = 1.0F - std::numeric_limits<float>::epsilon() / 2;
  check.Range("sampling.temperature", s.temperature, 0.0F, 2.0F, "0 to 2");
  check.Range("sampling.top_p", s.top_p, kAboveZero, 1.0F, "above 0 to 1");
  check.Range("sampling.top_k", s.top_k, 0, std::numeric_limits<int>::max(), "0 to the vocabulary size");
  check.Range("sampling.min_p", s.min_p, 0.0F, kBelowOne, "0 to below 1");
  check.Range("sampling.repetition_penalty", s.repetition_penalty, kAboveZero, 2.0F, "above 0 to 2");
  check.Range("sampling.presence_penalty", s.presence_penalty, -2.0F, 2.0F, "-2 to 2");
  check.Range("sampling.frequency_penalty", s.frequency_penalty, -2.0F, 2.0F, "-2 to 2");
  check.Range("sampling.logprobs", s.logprobs, 0, 20, "0 to 20");
  return s;
}

void CheckChat(const v1::Chat& chat, const FieldLimits& limits, Checker& check) {
  if (!check.Count("chat.messages", chat.messages(), 1, limits.max_chat_messages)) return;
  check.Each(chat.messages_size(), [&](int i) {
    const v1::ChatMessage& message = chat.messages(i);
    if (std::find(std::begin(kRoles), std::end(kRoles), message.role()) == std::end(kRoles)) {
      check.Violate(fmt::format("chat.messages[{}].role", i),
                    fmt::format("got {}; allowed system, user, assistant, tool", Show(message.role())));
    }
    check.Utf8(fmt::format("chat.messages[{}].content", i), message.content());
  });
}

PromptInput DecodeInput(const v1::GenerateRequest& m, const FieldLimits& limits, Checker& check) {
  switch (m.input_case()) {
    case v1::GenerateRequest::kPrompt:
      check.Text("prompt", m.prompt());
      return m.prompt();
    case v1::GenerateRequest::kChat:
      CheckChat(m.chat(), limits, check);
      return DecodeChat(m.chat());
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = m.token_ids().ids();
      if (ids.empty()) check.Violate("token_ids", "empty; at least one token id is needed");
      check.Each(ids.size(), [&](int i) {
        if (ids[i] >= 0) return;
        check.Violate(fmt::format("token_ids.ids[{}]", i),
                      fmt::format("got {}; allowed 0 to below the vocabulary size", ids[i]));
      });
      return std::vector<engine::TokenId>(ids.begin(), ids.end());
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  check.Violate("input", "not set; one of prompt, chat, token_ids is needed");
  return std::string();
}

std::vector<std::string> DecodeStop(const v1::GenerateRequest& m, const FieldLimits& limits, Checker& check) {
  if (!check.Count("stop", m.stop(), 0, limits.max_stop_strings)) return {};
  check.Each(m.stop_size(), [&](int i) {
    const std::string field = fmt::format("stop[{}]", i);
    const std::string& stop = m.stop(i);
    if (stop.empty() || stop.size() > limits.max_stop_bytes) {
      check.Violate(field, fmt::format("got {} bytes; allowed 1 to {}", stop.size(), limits.max_stop_bytes));
    } else {
      check.Utf8(field, stop);
    }
  });
  return {m.stop().begin(), m.stop().end()};
}

// llm-d's header: the objective for the time to the first token, in ms.
Duration DecodeTtftObjective(const CallContext& call, Checker& check) {
  const auto header = call.headers.find("x-llm-d-slo-ttft-ms");
  if (header == call.headers.end()) return Duration::zero();
  double ms = 0;
  if (!absl::SimpleAtod(header->second, &ms) || !(ms > 0) || ms > static_cast<double>(kMaxDeadlineMs)) {
    check.Violate("header x-llm-d-slo-ttft-ms",
                  fmt::format("got '{}'; allowed above 0 to {}", header->second, kMaxDeadlineMs));
    return Duration::zero();
  }
  return FromMillis(ms);
}

// What Generate and Embed say alike.
template <typename Message>
InferenceRequest DecodeCommon(const Message& m, const CallContext& call, const FieldLimits& limits, Checker& check) {
  InferenceRequest request;
  request.request_id = m.request_id().empty() ? call.request_id : m.request_id();
  request.caller = call.caller;
  request.headers = call.headers;
  request.door = "grpc";
  request.model = m.model();
  request.qos_class = DecodeClass(m.priority_class(), call, check);
  request.tenant = IdOrHeader("tenant", m.tenant(), "x-sluice-tenant", call, limits.max_id_bytes, check);
  request.user = m.user();
  request.arrival = call.arrival;
  request.previous_attempts = call.previous_attempts;
  request.deadline = call.deadline;
  request.ttft_objective = DecodeTtftObjective(call, check);
  check.RequestId(m.request_id(), limits.max_id_bytes);
  check.Id("model", m.model(), limits.max_id_bytes);
  check.Id("user", m.user(), limits.max_id_bytes);
  return request;
}

void EncodeLogprobs(const engine::SampledToken& sampled, const engine::Tokenizer& tokenizer, v1::TokenLogprobs& out) {
  const auto fill = [&tokenizer](engine::TokenId token, float logprob, v1::TokenLogprobs& entry) {
    entry.set_token_id(token);
    entry.set_token(ReplaceInvalidUtf8(tokenizer.Piece(token, /*special=*/true)));
    entry.set_logprob(logprob);
  };
  fill(sampled.token, sampled.logprob, out);
  for (const engine::TokenLogprob& top : sampled.top) fill(top.token, top.logprob, *out.add_top());
}

}  // namespace

absl::StatusOr<InferenceRequest> DecodeGenerate(const v1::GenerateRequest& message, const CallContext& call,
                                                const FieldLimits& limits) {
  Checker check;
  InferenceRequest request = DecodeCommon(message, call, limits, check);
  request.input = DecodeInput(message, limits, check);
  request.sampling = DecodeSampling(message.sampling(), check);
  if (message.has_max_tokens()) {
    request.max_tokens = message.max_tokens();
    check.Range("max_tokens", message.max_tokens(), 1, std::numeric_limits<int>::max(), "1 to the slot context");
  }
  request.stop_strings = DecodeStop(message, limits, check);
  request.ignore_eos = message.ignore_eos();
  request.truncate_prompt = message.truncate_prompt();
  request.conversation =
      IdOrHeader("conversation", message.conversation(), "x-session-id", call, limits.max_id_bytes, check);
  check.Range<int64_t>("deadline_ms", message.deadline_ms(), 0, kMaxDeadlineMs, "0 to 86400000");
  SLUICE_RETURN_IF_ERROR(check.Done());
  if (message.deadline_ms() > 0) {
    const MonoTime asked = SaturatingAdd(call.arrival, std::chrono::milliseconds(message.deadline_ms()));
    request.deadline = std::min(request.deadline, asked);
  }
  return request;
}

absl::StatusOr<EmbedCall> DecodeEmbed(const v1::EmbedRequest& message, const CallContext& call,
                                      const FieldLimits& limits) {
  Checker check;
  EmbedCall decoded{.request = DecodeCommon(message, call, limits, check),
                    .inputs = {message.input().begin(), message.input().end()}};
  if (check.Count("input", message.input(), 1, limits.max_embed_inputs)) {
    check.Each(message.input_size(), [&](int i) { check.Text(fmt::format("input[{}]", i), message.input(i)); });
  }
  SLUICE_RETURN_IF_ERROR(check.Done());
  return decoded;
}

absl::Status CheckTokenize(const v1::TokenizeRequest& message, const FieldLimits& limits) {
  Checker check;
  check.Id("model", message.model(), limits.max_id_bytes);
  if (message.has_text()) {
    check.Utf8("text", message.text());
  } else if (message.has_chat()) {
    CheckChat(message.chat(), limits, check);
  } else {
    check.Violate("input", "not set; one of text, chat is needed");
  }
  return check.Done();
}

absl::Status CheckDetokenize(const v1::DetokenizeRequest& message, int vocab_size) {
  Checker check;
  check.Each(message.token_ids_size(), [&](int i) {
    const int id = message.token_ids(i);
    if (id >= 0 && id < vocab_size) return;
    check.Violate(fmt::format("token_ids[{}]", i), fmt::format("got {}; allowed 0 to {}", id, vocab_size - 1));
  });
  return check.Done();
}

std::vector<engine::ChatMessage> DecodeChat(const v1::Chat& chat) {
  std::vector<engine::ChatMessage> messages;
  messages.reserve(static_cast<size_t>(chat.messages_size()));
  for (const v1::ChatMessage& message : chat.messages()) messages.push_back({message.role(), message.content()});
  return messages;
}

void EncodeTokens(const engine::TokenStream::Batch& batch, const EncodeOptions& options,
                  const engine::Tokenizer& tokenizer, v1::GenerateResponse& response) {
  for (const engine::TokenEvent& event : batch.tokens) {
    response.mutable_text()->append(event.text);
    if (options.token_ids) response.add_token_ids(event.sampled.token);
    if (options.logprobs) EncodeLogprobs(event.sampled, tokenizer, *response.add_logprobs());
  }
  response.mutable_text()->append(batch.tail_text);
}

void EncodeFinish(const engine::GenerationSummary& summary, const FlowInfo& info, v1::Finish& finish) {
  finish.set_reason(std::string(engine::FinishReasonName(summary.reason)));
  finish.set_stop(summary.stop_string);
  finish.mutable_usage()->set_prompt_tokens(summary.prompt_tokens);
  finish.mutable_usage()->set_output_tokens(summary.output_tokens);
  finish.mutable_usage()->set_cached_tokens(summary.cached_tokens);
  finish.mutable_usage()->set_max_tokens_limit(info.max_tokens_limit);
  v1::Timings& timings = *finish.mutable_timings();
  timings.set_queue_wait_ms(ToMillis(summary.queue_wait));
  timings.set_prefill_ms(ToMillis(summary.prefill));
  timings.set_ttft_ms(ToMillis(summary.ttft));
  timings.set_total_ms(ToMillis(summary.ttft + summary.decode));
  if (summary.output_tokens > 1 && summary.decode > Duration::zero()) {
    timings.set_tokens_per_second((summary.output_tokens - 1) / ToSeconds(summary.decode));
  }
  finish.set_model(info.model);
  finish.set_pipeline(info.pipeline);
  finish.set_request_id(info.request_id);
}

void EncodeModel(const engine::ModelInfo& info, v1::Model& model) {
  model.set_name(info.spec.name);
  model.set_state(std::string(engine::ModelStateName(info.state)));
  model.set_error(ReplaceInvalidUtf8(ToStd(info.error.message())));
  model.set_is_default(info.is_default);
  model.set_pinned(info.spec.pinned);
  model.set_backend(info.spec.path.starts_with("synthetic:") ? "synthetic" : "llama");
  model.set_slots(info.spec.geometry.slots);
  model.set_slot_context(info.spec.geometry.slot_context);
  model.set_kv_bytes(info.kv_bytes);
  model.set_has_chat_template(info.has_chat_template);
  if (!info.facts.has_value()) return;
  model.set_description(info.facts->description);
  model.set_train_context(info.facts->train_context);
  model.set_vocab_size(info.facts->vocab_size);
  model.set_embedding_size(info.facts->embedding_size);
  model.set_weight_bytes(info.facts->weight_bytes);
}

}  // namespace sluice::services
