#include "base/curl/curl_handle.h"

#include "fmt/format.h"

namespace sluice {
namespace {

bool IsTlsError(CURLcode code) {
  return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR ||
         code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_CERTPROBLEM;
}

}  // namespace

void InitCurl() {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)initialized;
}

void AddCurlHeader(const std::string& name, const std::string& value, CurlHeaders* headers) {
  if (value.empty()) return;
  curl_slist* const longer = curl_slist_append(headers->get(), fmt::format("{}: {}", name, value).c_str());
  if (longer == nullptr) return;  // out of memory
  (void)headers->release();
  headers->reset(longer);
}

bool MayPass(CURLcode code) {
  return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT || code == CURLE_GOT_NOTHING ||
         code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_OPERATION_TIMEDOUT;
}

absl::Status StatusOfCurl(CURLcode code, const std::string& url, const std::string& detail) {
  const std::string why = detail.empty() ? curl_easy_strerror(code) : detail;
  if (IsTlsError(code)) {
    return absl::UnavailableError(
        fmt::format("TLS with {}: {} (is the CA file right, and is TLS spoken there?)", url, why));
  }
  switch (code) {
    case CURLE_OK:
      return absl::OkStatus();
    case CURLE_URL_MALFORMAT:
      return absl::InvalidArgumentError(fmt::format("'{}' is no URL: {}", url, why));
    case CURLE_OPERATION_TIMEDOUT:
      return absl::DeadlineExceededError(fmt::format("{}: {}", url, why));
    case CURLE_PARTIAL_FILE:
      return absl::DataLossError(fmt::format("{}: the answer was cut short: {}", url, why));
    case CURLE_UNSUPPORTED_PROTOCOL:  // an answer without a status line
    case CURLE_WEIRD_SERVER_REPLY:
      return absl::UnavailableError(fmt::format("{}: what listens there does not speak HTTP/1.1: {}", url, why));
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
      return absl::UnavailableError(fmt::format("{}: {}", url, why));
    default:
      return absl::InternalError(fmt::format("{}: {} (libcurl's error {})", url, why, static_cast<int>(code)));
  }
}

}  // namespace sluice
