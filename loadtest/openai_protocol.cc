#include "loadtest/openai_protocol.h"

#include <type_traits>

#include "base/strings.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

using Json = nlohmann::json;

// Members of an object, when they are there and of that type: what a server sends is never trusted to be.
const Json* Member(const Json& object, const char* key) {
  const auto it = object.find(key);  // end() too when `object` is none
  return it == object.end() ? nullptr : &*it;
}
const std::string* Text(const Json& object, const char* key) {
  const Json* value = Member(object, key);
  return value == nullptr ? nullptr : value->get_ptr<const std::string*>();
}
template <typename T>
void Number(const Json& object, const char* key, T* out) {
  const Json* value = Member(object, key);
  if (value == nullptr) return;
  if (std::is_integral_v<T> ? value->is_number_integer() : value->is_number()) *out = value->get<T>();
}

void AppendText(const Json& object, const char* key, std::string* text) {
  if (const std::string* value = Text(object, key)) *text += *value;
}

void ReadChoice(const Json& choice, std::string* text, Record* record) {
  AppendText(choice, "text", text);
  if (const Json* delta = Member(choice, "delta")) {
    AppendText(*delta, "reasoning_content", text);
    AppendText(*delta, "reasoning", text);
    AppendText(*delta, "content", text);
  }
  const std::string* reason = Text(choice, "finish_reason");
  if (reason != nullptr && !reason->empty()) record->finish_reason = *reason;
}

void ReadTimings(const Json& timings, Record* record) {
  int64_t processed = -1, reused = 0;
  Number(timings, "prompt_n", &processed);
  Number(timings, "cache_n", &reused);
  if (processed >= 0 && record->prompt_tokens < 0) record->prompt_tokens = processed + reused;
  if (record->cached_tokens < 0) Number(timings, "cache_n", &record->cached_tokens);
  if (record->output_tokens < 0) Number(timings, "predicted_n", &record->output_tokens);
  Number(timings, "prompt_ms", &record->server_prefill_ms);
}

// {"error": {"message": ..., "code": ...}}, {"error": "..."} or, from older vLLM, {"object": "error", "message": ...}.
const Json* ErrorOf(const Json& answer) {
  const Json* error = Member(answer, "error");
  if (error != nullptr && !error->is_null()) return error;
  const std::string* object = Text(answer, "object");
  return object != nullptr && *object == "error" ? &answer : nullptr;
}

std::string MessageOf(const Json& error) {
  if (error.is_string()) return error.get<std::string>();
  const std::string* message = Text(error, "message");
  return message != nullptr ? *message : error.dump(-1, ' ', false, Json::error_handler_t::replace);
}

constexpr size_t kShownBytes = 300;

// For messages: the start of what came, on one line.
std::string Shown(std::string_view bytes) {
  std::string shown = ReplaceInvalidUtf8(bytes.substr(0, CompleteUtf8Prefix(bytes.substr(0, kShownBytes))));
  for (char& c : shown) c = static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  return shown;
}

}  // namespace

const char* OpenAiPath(const Request& request) {
  return request.chat.empty() ? "/v1/completions" : "/v1/chat/completions";
}

std::string OpenAiBody(const Request& request, const std::string& model, const Json& extra) {
  Json body = {{"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"max_tokens", request.max_tokens},
               {"temperature", request.temperature},
               {"seed", request.seed},
               {"ignore_eos", request.ignore_eos}};
  if (!model.empty()) body["model"] = model;
  if (!request.user.empty()) body["user"] = request.user;
  if (!request.chat.empty()) {
    Json& messages = body["messages"] = Json::array();
    for (const auto& [role, content] : request.chat) messages.push_back({{"role", role}, {"content", content}});
  } else if (!request.token_ids.empty()) {
    body["prompt"] = request.token_ids;
  } else {
    body["prompt"] = request.prompt;
  }
  if (extra.is_object()) body.merge_patch(extra);
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status ReadOpenAiChunk(std::string_view data, std::string* text, Record* record) {
  const Json chunk = Json::parse(data, nullptr, /*allow_exceptions=*/false);
  if (!chunk.is_object()) return absl::DataLossError(fmt::format("an event of the stream is no JSON: {}", Shown(data)));
  if (const Json* error = ErrorOf(chunk)) {
    int http_status = 500;
    Number(*error, "code", &http_status);
    return absl::Status(CodeOfHttp(http_status), "in the stream: " + MessageOf(*error));
  }
  if (const Json* choices = Member(chunk, "choices"); choices != nullptr && choices->is_array()) {
    for (const Json& choice : *choices) ReadChoice(choice, text, record);
  }
  if (const Json* usage = Member(chunk, "usage")) {
    Number(*usage, "prompt_tokens", &record->prompt_tokens);
    Number(*usage, "completion_tokens", &record->output_tokens);
    const Json* details = Member(*usage, "prompt_tokens_details");
    if (details != nullptr) Number(*details, "cached_tokens", &record->cached_tokens);
  }
  if (const Json* timings = Member(chunk, "timings")) ReadTimings(*timings, record);
  return absl::OkStatus();
}

absl::StatusCode CodeOfHttp(int http_status) {
  switch (http_status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 408:
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 499:
      return absl::StatusCode::kCancelled;
    case 503:
      return absl::StatusCode::kUnavailable;
    default:
      break;
  }
  if (http_status >= 400 && http_status < 500) return absl::StatusCode::kInvalidArgument;
  return http_status >= 500 && http_status < 600 ? absl::StatusCode::kInternal : absl::StatusCode::kUnknown;
}

absl::Status StatusOfHttp(int http_status, std::string_view body) {
  const Json answer = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  const Json* error = ErrorOf(answer);
  const std::string message = error != nullptr ? MessageOf(*error) : Shown(body);
  return absl::Status(CodeOfHttp(http_status), fmt::format("HTTP {}: {}", http_status, message));
}

absl::StatusOr<std::vector<std::string>> ReadOpenAiModels(std::string_view body) {
  const Json answer = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  const Json* data = Member(answer, "data");
  if (data == nullptr || !data->is_array()) return absl::DataLossError("no list of models: " + Shown(body));
  std::vector<std::string> names;
  for (const Json& model : *data) {
    if (const std::string* name = Text(model, "id")) names.push_back(*name);
  }
  return names;
}

}  // namespace sluice::loadtest
