#include "flags/flagd/logic_values.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "base/strings.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

const std::string* Text(const json& value) { return value.get_ptr<const std::string*>(); }

std::optional<double> ReadNumber(const std::string& text) {
  double number = 0;
  if (!absl::SimpleAtod(ToAbsl(text), &number)) return std::nullopt;
  return number;
}

}  // namespace

bool IsTruthy(const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (const std::string* text = Text(value)) return !text->empty();
  return !value.empty();  // null is empty
}

double ComparableNumber(const json& value) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  if (value.is_null()) return 0;
  if (value.is_number()) return value.get<double>();
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  const std::string* text = Text(value);
  if (text == nullptr) return kNan;
  if (absl::StripAsciiWhitespace(*text).empty()) return 0;
  return ReadNumber(*text).value_or(kNan);
}

std::optional<double> ArithmeticNumber(const json& value) {
  if (value.is_number()) return value.get<double>();
  if (const std::string* text = Text(value)) return ReadNumber(*text).value_or(0);
  return std::nullopt;
}

bool LooselyEqual(const json& a, const json& b) {
  if (a.is_null() || b.is_null()) return a.is_null() && b.is_null();
  if (a.is_string() && b.is_string()) return *Text(a) == *Text(b);
  return ComparableNumber(a) == ComparableNumber(b);
}

bool StrictlyEqual(const json& a, const json& b) {
  return (a.type() == b.type() || (a.is_number() && b.is_number())) && LooselyEqual(a, b);
}

bool Less(const json& a, const json& b) {
  if (a.is_string() && b.is_string()) return *Text(a) < *Text(b);
  return ComparableNumber(a) < ComparableNumber(b);
}

std::string NumberText(double number) {
  std::array<char, 512> buffer;  // a double has at most 309 digits before the point, or 343 characters after it
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::fixed).ptr;
  return std::string(buffer.data(), end);
}

std::optional<std::string> ScalarText(const json& value) {
  if (value.is_null()) return "";
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number()) return NumberText(value.get<double>());
  if (const std::string* text = Text(value)) return *text;
  return std::nullopt;
}

}  // namespace sluice::flags::flagd
