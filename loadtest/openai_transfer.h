// One request to an OpenAI-compatible server, from its body to its verdict, on a libcurl handle that the target drives.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "loadtest/curl_handle.h"
#include "loadtest/record.h"
#include "loadtest/sse.h"
#include "loadtest/target.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {

// What the transfers of a target share. Immutable.
struct OpenAiSetup {
  TargetOptions options;
  std::string root;      // URL up to "/v1/..."
  nlohmann::json extra;  // merged over every body
  const Clock& clock;
  MonoTime epoch;

  int64_t NowNs() const { return (clock.Now() - epoch).count(); }
};

// Thread-compatible: the target's thread only, but for the constructor.
class OpenAiTransfer {
 public:
  OpenAiTransfer(const OpenAiSetup& setup, Request request, Record* record, std::function<void()> done);
  OpenAiTransfer(const OpenAiTransfer&) = delete;
  OpenAiTransfer& operator=(const OpenAiTransfer&) = delete;

  // Sets the handle up for this request, CURLOPT_PRIVATE being `this`.
  void Prepare(CurlHandle handle);
  CURL* handle() const { return handle_.get(); }

  MonoTime deadline() const { return deadline_; }
  // After that there is nothing to do but Finish.
  void TimeOut();

  bool slow() const { return request_.read_delay.count() > 0; }
  // When a slow reader looks at the stream again; kInfiniteFuture: it is looking.
  MonoTime next_read() const { return next_read_; }
  // Not inside a callback of libcurl.
  void ReadOn();

  // libcurl is through with the handle.
  void OnOver(CURLcode code);
  void Cancel();

  // Known once there is nothing left to do; then the target calls Finish.
  bool finished() const { return verdict_.has_value(); }
  // Completes the record and gives the handle back, reset. The caller then calls the result's `done` once this is gone.
  std::pair<CurlHandle, std::function<void()>> Finish();

 private:
  static size_t OnBytes(char* bytes, size_t, size_t count, void* self);
  size_t Receive(std::string_view bytes);
  void ReadEvents();
  void ReadMessage(const std::string& data);
  absl::Status Judge(CURLcode code) const;

  const OpenAiSetup& setup_;
  const Request request_;
  Record* const record_;
  std::function<void()> done_;
  const MonoTime deadline_;

  CurlHandle handle_;
  CurlHeaders headers_;
  std::string url_, body_;
  std::array<char, CURL_ERROR_SIZE> curl_error_{};

  long http_status_ = 0;
  std::string refusal_;  // body of an answer that is no success
  SseParser events_;
  std::string event_, text_;  // reused
  bool complete_ = false;     // [DONE] came
  int messages_ = 0;

  MonoTime next_read_ = kInfiniteFuture;  // a slow reader looks away until then
  bool paused_ = false;                   // libcurl holds bytes back for us
  std::optional<CURLcode> over_;          // came while looking away
  std::optional<absl::Status> verdict_;
};

}  // namespace sluice::loadtest
