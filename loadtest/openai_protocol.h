// The OpenAI API's JSON as vLLM, llama-server and others speak it: request bodies, chunks of a stream, errors. Pure.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "loadtest/record.h"
#include "loadtest/target.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice::loadtest {

// "/v1/chat/completions" for a chat, else "/v1/completions".
const char* OpenAiPath(const Request& request);

// A streaming request with usage. `extra` (an object) is merged over it as RFC 7396 says: null removes a field.
std::string OpenAiBody(const Request& request, const std::string& model, const nlohmann::json& extra);

// One chunk of the stream: writes finish_reason and what the server counted (usage, llama-server's timings) into
// `record`, and the text of all choices, reasoning included, into `text`. An error object gives its status; what is no
// JSON object DATA_LOSS.
absl::Status ReadOpenAiChunk(std::string_view data, std::string* text, Record* record);

// Of the gRPC code, as HTTP's codes map: 400 and 422 INVALID_ARGUMENT, 429 RESOURCE_EXHAUSTED, 503 UNAVAILABLE, ...
absl::StatusCode CodeOfHttp(int http_status);
// Of an answer that is no success: "HTTP 429: <message of the body>".
absl::Status StatusOfHttp(int http_status, std::string_view body);

// Names in the answer to GET /v1/models. DATA_LOSS: it is none.
absl::StatusOr<std::vector<std::string>> ReadOpenAiModels(std::string_view body);

}  // namespace sluice::loadtest
