// OpenFeature Remote Evaluation Protocol 0.3 (open-feature/protocol, service/openapi.yaml) as a function from request
// to response, for an HTTP door to call.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "flags/flag_gate.h"

namespace sluice::services {

struct HttpRequest {
  std::string_view method;                                  // "POST"
  std::string_view path;                                    // without the query, not decoded
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case
  std::string_view body;
};

struct HttpResponse {
  int status = 200;
  std::map<std::string, std::string, std::less<>> headers;  // content-type, etag, allow
  std::string body;                                         // JSON, or empty
};

inline constexpr std::string_view kOfrepPrefix = "/ofrep/v1/";
inline constexpr size_t kMaxOfrepBodyBytes = 1 << 20;

// POST /ofrep/v1/evaluate/flags/{key}: one flag. POST /ofrep/v1/evaluate/flags: all of them, with an ETag of the
// answer; the same ETag in if-none-match gets 304 and no body. 400: a body that is no {"context": object}
// (INVALID_CONTEXT or PARSE_ERROR), or a flag whose definition fails. 404: no such flag, or path. 405, 413.
// Authentication and rates are the door's. A value left out means: the default in the client's code. Thread-safe;
// looks at one snapshot of the gate and counts flags that there are not.
HttpResponse HandleOfrep(const HttpRequest& request, const flags::FlagGate& gate, WallTime now);

}  // namespace sluice::services
