#include "loadtest/curl_handle.h"

namespace sluice::loadtest {

void SetConnection(const TargetOptions& options, CURL* handle) {
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "sluice-bench");
  if (!options.ca_file.empty()) curl_easy_setopt(handle, CURLOPT_CAINFO, options.ca_file.c_str());
}

CurlHeaders MakeHeaders(const TargetOptions& options, const Request* request) {
  CurlHeaders headers(curl_slist_append(nullptr, "Expect:"));  // never wait for "100 Continue"
  if (!options.token.empty()) AddCurlHeader("Authorization", "Bearer " + options.token, &headers);
  for (const auto& [name, value] : options.headers) AddCurlHeader(name, value, &headers);
  if (request == nullptr) return headers;
  AddCurlHeader("Content-Type", "application/json", &headers);
  AddCurlHeader("x-request-id", request->id, &headers);
  AddCurlHeader("x-sluice-tenant", request->tenant, &headers);
  AddCurlHeader("x-sluice-class", request->priority_class, &headers);
  AddCurlHeader("x-session-id", request->conversation, &headers);
  return headers;
}

}  // namespace sluice::loadtest
