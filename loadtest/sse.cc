#include "loadtest/sse.h"

namespace sluice::loadtest {

void SseParser::Append(std::string_view bytes) {
  buffer_.erase(0, begin_);
  scanned_ -= begin_;
  begin_ = 0;
  buffer_ += bytes;
}

bool SseParser::NextLine(std::string_view* line) {
  if (after_cr_ && begin_ < buffer_.size()) {
    if (buffer_[begin_] == '\n') scanned_ = ++begin_;
    after_cr_ = false;
  }
  const size_t end = buffer_.find_first_of("\r\n", scanned_);
  if (end == std::string::npos) {
    scanned_ = buffer_.size();
    return false;
  }
  *line = std::string_view(buffer_).substr(begin_, end - begin_);
  after_cr_ = buffer_[end] == '\r';
  scanned_ = begin_ = end + 1;
  return true;
}

bool SseParser::Next(std::string* data) {
  std::string_view line;
  while (NextLine(&line)) {
    if (line.empty()) {
      if (!has_data_) continue;
      has_data_ = false;
      data->swap(data_);
      data_.clear();
      return true;
    }
    const size_t colon = line.find(':');  // at 0: a comment
    if (line.substr(0, colon) != "data") continue;
    std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
  return false;
}

}  // namespace sluice::loadtest
