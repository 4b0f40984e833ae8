#include "loadtest/report_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/strings.h"

namespace sluice::loadtest {
namespace {

// Decimals that leave three significant digits of `value`.
int Decimals(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  return std::clamp(2 - static_cast<int>(std::floor(std::log10(std::abs(value)))), 0, 6);
}

std::string Fixed(double value, int decimals) {
  if (std::isnan(value)) return "–";
  if (std::isinf(value)) return value > 0 ? "∞" : "−∞";
  if (std::abs(value) >= 1e9) return fmt::format("{:.3g}", value);
  std::string text = fmt::format("{:.{}f}", value, decimals);
  return text.find_first_not_of("-0.") == std::string::npos ? "0" : text;
}

// Length of the UTF-8 character that begins with `lead`.
size_t CharLength(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4; }

// Controls of Unicode: C1, line and paragraph separators, bidirectional marks, and non-characters that XML forbids.
bool IsControl(std::string_view c) {
  if (c.size() == 1) return static_cast<unsigned char>(c[0]) < 0x20 || c[0] == 0x7f;
  if (c.size() == 2) return c[0] == '\xc2' && static_cast<unsigned char>(c[1]) < 0xa0;
  const bool marks = c >= "\xe2\x80\x8b" && c <= "\xe2\x80\x8f";
  const bool separators = c >= "\xe2\x80\xa8" && c <= "\xe2\x80\xae";
  const bool isolates = c >= "\xe2\x81\xa0" && c <= "\xe2\x81\xaf";
  return c.size() == 3 && (marks || separators || isolates || c == "\xef\xbb\xbf" || c >= "\xef\xbf\xbe");
}

}  // namespace

std::string Number(double value) {
  const bool whole = std::isfinite(value) && value == std::floor(value);
  return Fixed(value, whole ? 0 : Decimals(value));
}

std::string WithInterval(const Estimate& estimate) {
  if (!estimate.known()) return "–";
  if (!estimate.has_interval()) return Number(estimate.value);
  // A value of 0 has no digits of its own to go by.
  const int decimals = Decimals(estimate.value != 0 ? estimate.value : estimate.high);
  return fmt::format("{} [{}, {}]", Fixed(estimate.value, decimals), Fixed(estimate.low, decimals),
                     Fixed(estimate.high, decimals));
}

Estimate Scaled(const Estimate& estimate, double factor) {
  return {estimate.value * factor, estimate.low * factor, estimate.high * factor};
}

std::string Printable(std::string_view text) {
  const std::string valid = ReplaceInvalidUtf8(text);
  std::string out;
  for (size_t i = 0; i < valid.size();) {
    const std::string_view c = std::string_view(valid).substr(i, CharLength(static_cast<unsigned char>(valid[i])));
    const bool space = c == "\n" || c == "\r" || c == "\t";
    out += space ? " " : IsControl(c) ? "�" : c;
    i += c.size();
  }
  return out;
}

size_t Columns(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xc0) != 0x80; }));
}

std::string Shortened(std::string_view text, size_t columns) {
  if (Columns(text) <= columns) return std::string(text);
  size_t end = 0;
  for (size_t column = 0; column + 1 < columns; ++column) end += CharLength(static_cast<unsigned char>(text[end]));
  return std::string(text.substr(0, end)) + "…";
}

std::string XmlText(std::string_view text) {
  std::string out;
  for (const char c : Printable(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace sluice::loadtest
