#include "engine/sampling/output_text.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace sluice::engine {
namespace {

// Start of the longest suffix of `text` that may still grow into a stop string; text.size() when none may.
size_t StartOfOpenStop(std::string_view text, const std::vector<std::string>& stop_strings) {
  size_t start = text.size();
  for (const std::string& stop : stop_strings) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > text.size() - start; --n) {
      if (text.ends_with(std::string_view(stop).substr(0, n))) {
        start = text.size() - n;
        break;
      }
    }
  }
  return start;
}

}  // namespace

OutputText::OutputText(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {
  SLUICE_CHECK(std::none_of(stop_strings_.begin(), stop_strings_.end(), [](const auto& s) { return s.empty(); }),
               "an empty stop string would stop every text");
}

OutputText::Piece OutputText::Append(std::string_view bytes) {
  SLUICE_CHECK(!stopped_, "nothing follows a stop string");
  held_ += bytes;
  const std::string* found = nullptr;
  size_t found_at = std::string::npos;
  for (const std::string& stop : stop_strings_) {
    const size_t at = held_.find(stop);
    if (at < found_at || (at == found_at && found != nullptr && stop.size() > found->size())) {
      found = &stop;
      found_at = at;
    }
  }
  if (found != nullptr) {
    stopped_ = true;
    Piece piece{.text = ReplaceInvalidUtf8(std::string_view(held_).substr(0, found_at)), .stopped = true};
    piece.stop = *found;
    held_.clear();
    return piece;
  }
  const size_t safe = std::min(CompleteUtf8Prefix(held_), StartOfOpenStop(held_, stop_strings_));
  Piece piece{.text = ReplaceInvalidUtf8(std::string_view(held_).substr(0, safe))};
  held_.erase(0, safe);
  return piece;
}

std::string OutputText::Flush() { return ReplaceInvalidUtf8(std::exchange(held_, {})); }

}  // namespace sluice::engine
