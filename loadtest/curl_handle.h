// What every HTTP request of the tool has in common: libcurl handles, their options, and what curl's errors mean.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// Initializes libcurl, once. Thread-safe; call it before anything else of libcurl.
void InitCurl();

struct CurlDeleter {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using CurlHandle = std::unique_ptr<CURL, CurlDeleter>;
using CurlHeaders = std::unique_ptr<curl_slist, CurlDeleter>;

// HTTP/1.1, TLS checked against options.ca_file, straight to the host: a proxy would be measured too.
void SetConnection(const TargetOptions& options, CURL* handle);

// Bearer token, the options' headers and, for a request, x-request-id, x-sluice-tenant, x-sluice-class, x-session-id.
CurlHeaders MakeHeaders(const TargetOptions& options, const Request* request);

// UNAVAILABLE: refused, reset, not found, TLS; DEADLINE_EXCEEDED; DATA_LOSS: cut short; INVALID_ARGUMENT: no URL.
// `detail`: curl's error buffer, may be empty.
absl::Status StatusOfCurl(CURLcode code, const std::string& url, const std::string& detail);
// True for errors of a server that is still starting.
bool MayPass(CURLcode code);

}  // namespace sluice::loadtest
