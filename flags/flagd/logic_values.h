// How JSONLogic looks at values: JavaScript's conversions, as flagd's engine does them. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "nlohmann/json.hpp"

namespace sluice::flags::flagd {

bool IsTruthy(const nlohmann::json& value);  // false, 0, "", [], {} and null are not

// For comparisons: null 0, booleans 0 and 1, "" 0, a number's text its number; else NaN.
double ComparableNumber(const nlohmann::json& value);
// For arithmetic: a number, or a string's number (0 when it is none); nothing for what is neither.
std::optional<double> ArithmeticNumber(const nlohmann::json& value);

bool LooselyEqual(const nlohmann::json& a, const nlohmann::json& b);   // null equals null alone; two strings as text
bool StrictlyEqual(const nlohmann::json& a, const nlohmann::json& b);  // also the same type; arrays and objects never
bool Less(const nlohmann::json& a, const nlohmann::json& b);           // two strings by their bytes, else as numbers

// Shortest decimal text that reads back as `number`, without an exponent: 1, 0.1, 100000000000000000000.
std::string NumberText(double number);
// Null is ""; nothing for arrays and objects.
std::optional<std::string> ScalarText(const nlohmann::json& value);

}  // namespace sluice::flags::flagd
