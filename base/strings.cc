#include "base/strings.h"

namespace sluice {
namespace {

// Length of the well-formed character that starts at s[0]; 0 when malformed; -1 when `s` ends too early
// to tell (every byte so far is legal). Table 3-7 of the Unicode Standard.
int CharLength(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  int length = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= s.size()) return -1;
    if (byte(i) < low || byte(i) > high) return 0;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

bool IsValidUtf8(std::string_view s) {
  while (!s.empty()) {
    const int n = CharLength(s);
    if (n <= 0) return false;
    s.remove_prefix(n);
  }
  return true;
}

size_t CompleteUtf8Prefix(std::string_view s) {
  // Only the last three bytes can belong to an unfinished character.
  for (size_t back = 1; back <= 3 && back <= s.size(); ++back) {
    const size_t at = s.size() - back;
    if ((static_cast<unsigned char>(s[at]) & 0xC0) == 0x80) continue;  // a continuation byte: look further back
    return CharLength(s.substr(at)) == -1 ? at : s.size();
  }
  return s.size();
}

std::string ReplaceInvalidUtf8(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  while (!s.empty()) {
    const int n = CharLength(s);
    if (n > 0) {
      out.append(s.substr(0, n));
      s.remove_prefix(n);
    } else {
      out.append("\xEF\xBF\xBD");
      s.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace sluice
