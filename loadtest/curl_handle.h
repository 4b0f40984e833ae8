// What every HTTP request of the tool has in common.
#pragma once

#include "base/curl/curl_handle.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// HTTP/1.1, TLS checked against options.ca_file, straight to the host: a proxy would be measured too.
void SetConnection(const TargetOptions& options, CURL* handle);

// Bearer token, the options' headers and, for a request, x-request-id, x-sluice-tenant, x-sluice-class, x-session-id.
CurlHeaders MakeHeaders(const TargetOptions& options, const Request* request);

}  // namespace sluice::loadtest
