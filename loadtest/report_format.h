// Numbers and foreign text as every report shows them. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "loadtest/statistics.h"

namespace sluice::loadtest {

// Three significant digits, integers whole: "412", "41.2", "0.412"; "–" for NaN, "∞" and "−∞".
std::string Number(double value);
// "412 [398, 431]", all with the digits of the value; without an interval "412"; unknown "–".
std::string WithInterval(const Estimate& estimate);
Estimate Scaled(const Estimate& estimate, double factor);

// Valid UTF-8 without control characters, line breaks and bidirectional overrides (each becomes a space or "�"), so
// that an error message cannot drive a terminal or break a table or an XML file.
std::string Printable(std::string_view text);
// Code points of valid UTF-8: near enough to terminal columns.
size_t Columns(std::string_view text);
// At most `columns`, the last one "…" when it was longer.
std::string Shortened(std::string_view text, size_t columns);

// Printable text for HTML and SVG, attributes included.
std::string XmlText(std::string_view text);

}  // namespace sluice::loadtest
