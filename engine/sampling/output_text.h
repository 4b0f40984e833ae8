// From sampled tokens to text that may be sent: never half a UTF-8 character, never part of a stop string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::engine {

// Thread-safety: thread-compatible (engine thread), one per generation.
// Memory: holds back at most the longest stop string plus 3 bytes.
class OutputText {
 public:
  // `stop_strings`: at most 16, each non-empty valid UTF-8; empty vector = none.
  explicit OutputText(std::vector<std::string> stop_strings);

  struct Piece {
    std::string text;      // safe to send now; valid UTF-8; may be empty
    bool stopped = false;  // a stop string was completed; text ends before it and nothing more will come
    std::string stop;      // which one
  };

  // Adds the bytes of one token. Finds stop strings across token borders; the earliest match wins, and at the
  // same start the longest; a completed match never waits for one that might still complete. Requires: not stopped
  // before.
  Piece Append(std::string_view bytes);

  // The generation ended for another reason: whatever was held back, malformed bytes as U+FFFD.
  std::string Flush();

 private:
  const std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace sluice::engine
