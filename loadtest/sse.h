// Server-sent events (WHATWG HTML, "Server-sent events"), cut out of bytes that come in pieces of any size.
#pragma once

#include <string>
#include <string_view>

namespace sluice::loadtest {

// Of an event only its data is kept: model servers give no meaning to `event`, `id` and `retry`. Any of CRLF, LF and CR
// ends a line. Thread-compatible.
class SseParser {
 public:
  void Append(std::string_view bytes);

  // Data of the next complete event, its lines joined by LF. False: more bytes are needed. An event that no blank line
  // ended is not complete.
  bool Next(std::string* data);

 private:
  bool NextLine(std::string_view* line);

  std::string buffer_;  // bytes from `begin_` on are not consumed
  size_t begin_ = 0;
  size_t scanned_ = 0;     // no line ends in [begin_, scanned_)
  bool after_cr_ = false;  // an LF that comes next belongs to the line before
  bool has_data_ = false;
  std::string data_;  // of the event under way
};

}  // namespace sluice::loadtest
