// What every user of libcurl needs: its handles, and what its errors mean.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace sluice {

// Initializes libcurl, once. Thread-safe; call it before anything else of libcurl.
void InitCurl();

struct CurlDeleter {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using CurlHandle = std::unique_ptr<CURL, CurlDeleter>;
using CurlHeaders = std::unique_ptr<curl_slist, CurlDeleter>;

// Appends "name: value"; an empty value adds nothing.
void AddCurlHeader(const std::string& name, const std::string& value, CurlHeaders* headers);

// UNAVAILABLE: refused, reset, not found, TLS; DEADLINE_EXCEEDED; DATA_LOSS: cut short; INVALID_ARGUMENT: no URL.
// `detail`: curl's error buffer, may be empty.
absl::Status StatusOfCurl(CURLcode code, const std::string& url, const std::string& detail);
// True for errors of a server that is still starting.
bool MayPass(CURLcode code);

}  // namespace sluice
