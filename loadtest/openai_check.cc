#include "loadtest/openai_check.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_join.h"
#include "base/mutex.h"
#include "base/status.h"
#include "fmt/format.h"
#include "loadtest/curl_handle.h"
#include "loadtest/openai_protocol.h"

namespace sluice::loadtest {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(100);
constexpr size_t kMaxBody = size_t{1} << 20;

struct Answer {
  CURLcode code = CURLE_OK;
  int http_status = 0;
  std::string body, error;
};

size_t Collect(char* bytes, size_t, size_t count, void* body) {
  auto* text = static_cast<std::string*>(body);
  if (text->size() + count > kMaxBody) return 0;
  text->append(bytes, count);
  return count;
}

// libcurl asks once a second while nothing comes.
int AbortOnStop(void* stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(stop)->load(std::memory_order_relaxed) ? 1 : 0;
}

Answer Get(const TargetOptions& options, const std::string& url, Duration timeout, const std::atomic<bool>& stop) {
  InitCurl();
  const CurlHandle handle(curl_easy_init());
  const CurlHeaders headers = MakeHeaders(options, nullptr);
  std::array<char, CURL_ERROR_SIZE> error{};
  Answer answer;
  SetConnection(options, handle.get());
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(ToMillis(timeout))));
  curl_easy_setopt(handle.get(), CURLOPT_ERRORBUFFER, error.data());
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, &Collect);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &answer.body);
  curl_easy_setopt(handle.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle.get(), CURLOPT_XFERINFOFUNCTION, &AbortOnStop);
  curl_easy_setopt(handle.get(), CURLOPT_XFERINFODATA, &stop);
  answer.code = curl_easy_perform(handle.get());
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  answer.http_status = static_cast<int>(status);
  answer.error = error.data();
  return answer;
}

absl::Status JudgeModels(const TargetOptions& options, const Answer& answer) {
  switch (answer.http_status) {
    case 200:
      break;
    case 401:
      return absl::UnauthenticatedError(fmt::format("{} {}: {}", options.url,
                                                    options.token.empty() ? "wants a token" : "refuses the token",
                                                    std::string(StatusOfHttp(401, answer.body).message())));
    case 403:
      return absl::PermissionDeniedError(fmt::format("{} does not let this token in: {}", options.url,
                                                     std::string(StatusOfHttp(403, answer.body).message())));
    default:
      return absl::UnavailableError(fmt::format("{} is no OpenAI-compatible server: GET /v1/models answered {}",
                                                options.url,
                                                std::string(StatusOfHttp(answer.http_status, answer.body).message())));
  }
  const auto names = ReadOpenAiModels(answer.body);
  if (!names.ok()) {
    return absl::UnavailableError(fmt::format("{} is no OpenAI-compatible server: GET /v1/models: {}", options.url,
                                              std::string(names.status().message())));
  }
  if (options.model.empty() || std::find(names->begin(), names->end(), options.model) != names->end()) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      fmt::format("{} has no model '{}'; there are: {}", options.url, options.model, absl::StrJoin(*names, ", ")));
}

}  // namespace

std::string OpenAiRoot(const std::string& url) {
  std::string_view root = url;
  while (root.ends_with('/')) root.remove_suffix(1);
  if (root.ends_with("/v1")) root.remove_suffix(3);
  return std::string(root);
}

absl::Status CheckOpenAi(const TargetOptions& options, const Clock& clock, Duration timeout,
                         const std::atomic<bool>& stop) {
  const MonoTime give_up = SaturatingAdd(clock.Now(), timeout);
  const std::string root = OpenAiRoot(options.url);
  Mutex mutex;
  CondVar never;
  while (true) {
    const Duration left = std::min<Duration>(give_up - clock.Now(), std::chrono::seconds(10));
    Answer answer = Get(options, root + "/health", left, stop);
    // Not everybody has it: only a 503 means something.
    if (answer.code == CURLE_OK && answer.http_status != 503) answer = Get(options, root + "/v1/models", left, stop);
    if (stop.load(std::memory_order_relaxed)) return absl::CancelledError("interrupted");
    if (answer.code != CURLE_OK) {
      const absl::Status status = StatusOfCurl(answer.code, options.url, answer.error);
      if (!MayPass(answer.code)) return status;
      return absl::UnavailableError(fmt::format("{} cannot be reached (is a server listening there?): {}", options.url,
                                                std::string(status.message())));
    }
    if (answer.http_status != 503) return JudgeModels(options, answer);
    if (clock.Now() + kRetryPause >= give_up) {
      return absl::UnavailableError(fmt::format("{} is not ready after {:.1f} s: {}", options.url, ToSeconds(timeout),
                                                std::string(StatusOfHttp(503, answer.body).message())));
    }
    MutexLock lock(mutex);
    never.WaitFor(mutex, kRetryPause);
  }
}

}  // namespace sluice::loadtest
