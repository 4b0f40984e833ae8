#include "loadtest/openai_transfer.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "loadtest/openai_protocol.h"

namespace sluice::loadtest {
namespace {

constexpr size_t kMaxRefusal = size_t{64} << 10;

}  // namespace

OpenAiTransfer::OpenAiTransfer(const OpenAiSetup& setup, Request request, Record* record, std::function<void()> done)
    : setup_(setup),
      request_(std::move(request)),
      record_(record),
      done_(std::move(done)),
      deadline_(SaturatingAdd(setup.clock.Now(), request_.timeout)) {}

void OpenAiTransfer::Prepare(CurlHandle handle) {
  handle_ = std::move(handle);
  url_ = setup_.root + OpenAiPath(request_);
  body_ = OpenAiBody(request_, setup_.options.model, setup_.extra);
  headers_ = MakeHeaders(setup_.options, &request_);
  CURL* const h = handle_.get();
  SetConnection(setup_.options, h);
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);  // the target's thread blocks SIGPIPE instead: no system call per step
  curl_easy_setopt(h, CURLOPT_URL, url_.c_str());
  curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers_.get());
  curl_easy_setopt(h, CURLOPT_POST, 1L);
  curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body_.size()));
  curl_easy_setopt(h, CURLOPT_POSTFIELDS, body_.data());
  curl_easy_setopt(h, CURLOPT_ERRORBUFFER, curl_error_.data());
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, &OpenAiTransfer::OnBytes);
  curl_easy_setopt(h, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(h, CURLOPT_PRIVATE, this);
  record_->sent_ns = setup_.NowNs();
}

size_t OpenAiTransfer::OnBytes(char* bytes, size_t, size_t count, void* self) {
  return static_cast<OpenAiTransfer*>(self)->Receive({bytes, count});
}

// What libcurl's write callback returns: less than there was ends the transfer.
size_t OpenAiTransfer::Receive(std::string_view bytes) {
  if (verdict_.has_value()) return 0;
  if (next_read_ != kInfiniteFuture) {
    paused_ = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (http_status_ == 0) curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &http_status_);
  if (http_status_ != 200) {
    refusal_ += bytes.substr(0, kMaxRefusal - std::min(kMaxRefusal, refusal_.size()));
    return bytes.size();
  }
  events_.Append(bytes);
  ReadEvents();
  return verdict_.has_value() ? 0 : bytes.size();
}

void OpenAiTransfer::ReadEvents() {
  while (!verdict_.has_value() && next_read_ == kInfiniteFuture && events_.Next(&event_)) {
    if (complete_) continue;
    if (event_ == "[DONE]") {
      complete_ = true;
      record_->done_ns = setup_.NowNs();
    } else {
      ReadMessage(event_);
    }
  }
}

void OpenAiTransfer::ReadMessage(const std::string& data) {
  text_.clear();
  if (auto status = ReadOpenAiChunk(data, &text_, record_); !status.ok()) {
    verdict_ = std::move(status);
    return;
  }
  if (text_.empty()) return;  // a role, the usage, half a character
  const MonoTime now = setup_.clock.Now();
  record_->token_ns.push_back((now - setup_.epoch).count());
  if (request_.keep_text) record_->text += text_;
  if (++messages_ == request_.cancel_after_messages) return Cancel();
  if (request_.read_delay.count() > 0) next_read_ = now + request_.read_delay;
}

void OpenAiTransfer::Cancel() {
  if (!verdict_.has_value()) verdict_ = absl::CancelledError("cancelled by the client");
}

void OpenAiTransfer::TimeOut() {
  verdict_ = complete_ ? absl::OkStatus()
                       : absl::DeadlineExceededError(fmt::format("no complete answer within {:.1f} s; {} messages came",
                                                                 ToSeconds(request_.timeout), messages_));
}

void OpenAiTransfer::ReadOn() {
  next_read_ = kInfiniteFuture;
  ReadEvents();
  if (verdict_.has_value() || next_read_ != kInfiniteFuture) return;
  if (over_.has_value()) return OnOver(*over_);
  if (paused_) {
    paused_ = false;
    curl_easy_pause(handle_.get(), CURLPAUSE_CONT);  // may call Receive
  }
}

void OpenAiTransfer::OnOver(CURLcode code) {
  over_ = code;
  if (verdict_.has_value() || next_read_ != kInfiniteFuture) return;
  verdict_ = Judge(code);
}

absl::Status OpenAiTransfer::Judge(CURLcode code) const {
  long http_status = 0;  // an answer without a body never called Receive
  curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &http_status);
  if (http_status >= 300) return StatusOfHttp(static_cast<int>(http_status), refusal_);
  if (complete_ || !record_->finish_reason.empty()) return absl::OkStatus();
  if (code != CURLE_OK) return StatusOfCurl(code, url_, curl_error_.data());
  const char* type = nullptr;
  curl_easy_getinfo(handle_.get(), CURLINFO_CONTENT_TYPE, &type);
  return absl::DataLossError(
      fmt::format("the stream (HTTP {}, {}) ended without finish_reason and [DONE] after {} messages", http_status,
                  type == nullptr ? "no content type" : type, messages_));
}

std::pair<CurlHandle, std::function<void()>> OpenAiTransfer::Finish() {
  if (record_->done_ns < 0) record_->done_ns = setup_.NowNs();
  record_->code = verdict_->code();
  record_->error = std::string(verdict_->message());
  curl_easy_reset(handle_.get());
  return {std::move(handle_), std::move(done_)};
}

}  // namespace sluice::loadtest
