#include "flags/flagd/operators.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "flags/flagd/logic_values.h"
#include "flags/flagd/murmur3.h"
#include "flags/flagd/sem_ver.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

constexpr int64_t kMaxWeightSum = std::numeric_limits<int32_t>::max();

const std::string* Text(const json& value) { return value.get_ptr<const std::string*>(); }

const json& At(const Operands& operands, size_t i) {
  static const json kNull;
  return i < operands.size() ? operands[i] : kNull;
}

// Comparisons; with fewer than two operands false.
template <bool (*Holds)(const json&, const json&)>
json Compare(OperatorCall& call) {
  return call.operands.size() >= 2 && Holds(call.operands[0], call.operands[1]);
}
template <bool (*Holds)(const json&, const json&)>
json CompareNot(OperatorCall& call) {
  return !Compare<Holds>(call).template get<bool>();
}
bool LessOrEqual(const json& a, const json& b) { return Less(a, b) || LooselyEqual(a, b); }
bool Greater(const json& a, const json& b) { return Less(b, a); }
bool GreaterOrEqual(const json& a, const json& b) { return LessOrEqual(b, a); }
// With three operands: between.
template <bool (*Holds)(const json&, const json&)>
json Order(OperatorCall& call) {
  const Operands& o = call.operands;
  return o.size() >= 2 && Holds(o[0], o[1]) && (o.size() != 3 || Holds(o[1], o[2]));
}

json Not(OperatorCall& call) { return !IsTruthy(At(call.operands, 0)); }
json NotNot(OperatorCall& call) { return IsTruthy(At(call.operands, 0)); }

double Number(OperatorCall& call, size_t i) {
  const std::optional<double> number = ArithmeticNumber(At(call.operands, i));
  if (!number.has_value() && call.error.empty()) call.error = "needs numbers, or strings that hold one";
  return number.value_or(0);
}

template <typename Step>
json Fold(OperatorCall& call, double start, size_t first, Step step) {
  for (size_t i = first; i < call.operands.size(); ++i) start = step(start, Number(call, i));
  return start;
}

json Add(OperatorCall& call) {
  return Fold(call, 0, 0, [](double a, double b) { return a + b; });
}
json Multiply(OperatorCall& call) {
  return Fold(call, 1, 0, [](double a, double b) { return a * b; });
}
json Subtract(OperatorCall& call) {
  if (call.operands.empty()) return 0;
  if (call.operands.size() == 1) return -Number(call, 0);
  return Fold(call, Number(call, 0), 1, [](double a, double b) { return a - b; });
}
json Divide(OperatorCall& call) {
  if (call.operands.empty()) return 0;
  return Fold(call, Number(call, 0), 1, [](double a, double b) { return a / b; });
}
json Modulo(OperatorCall& call) { return std::fmod(Number(call, 0), Number(call, 1)); }
json Max(OperatorCall& call) {
  if (call.operands.empty()) return nullptr;
  return Fold(call, Number(call, 0), 1, [](double a, double b) { return b > a ? b : a; });
}
json Min(OperatorCall& call) {
  if (call.operands.empty()) return nullptr;
  return Fold(call, Number(call, 0), 1, [](double a, double b) { return b < a ? b : a; });
}

json In(OperatorCall& call) {
  const json &needle = At(call.operands, 0), &hay = At(call.operands, 1);
  if (const std::string* text = Text(hay)) {
    const std::string* part = Text(needle);
    return part != nullptr && text->find(*part) != std::string::npos;
  }
  return hay.is_array() &&
         std::any_of(hay.begin(), hay.end(), [&](const json& element) { return StrictlyEqual(element, needle); });
}

json Merge(OperatorCall& call) {
  json merged = json::array();
  for (json& operand : call.operands) {
    if (!operand.is_array()) {
      merged.push_back(std::move(operand));
    } else {
      for (json& element : operand) merged.push_back(std::move(element));
    }
  }
  return merged;
}

// Outer white space goes when several operands are joined: flagd's engine does it, and buckets depend on it.
json Cat(OperatorCall& call) {
  std::string joined;
  for (const json& operand : call.operands) {
    const std::optional<std::string> text = ScalarText(operand);
    if (!text.has_value()) call.error = "joins strings, numbers and booleans, not arrays or objects";
    joined += text.value_or("");
    if (joined.size() > call.max_text_bytes) call.error = "builds a string that is too long";
    if (!call.error.empty()) return nullptr;
  }
  return call.operands.size() < 2 ? joined : std::string(absl::StripAsciiWhitespace(joined));
}

// Counts in characters, not bytes.
json Substr(OperatorCall& call) {
  const std::optional<std::string> text = ScalarText(At(call.operands, 0));
  if (!text.has_value()) call.error = "takes a part of a string, not of an array or object";
  std::vector<size_t> starts;  // byte of each character
  for (size_t i = 0; text.has_value() && i < text->size(); ++i) {
    if ((static_cast<unsigned char>((*text)[i]) & 0xC0) != 0x80) starts.push_back(i);
  }
  const auto count = static_cast<int64_t>(starts.size());
  const auto whole = [&](size_t i) { return static_cast<int64_t>(std::clamp(Number(call, i), -1e9, 1e9)); };
  const int64_t position = whole(1), length = call.operands.size() > 2 ? whole(2) : count;
  if (!call.error.empty()) return nullptr;
  const int64_t from = position < 0 ? count + position : position;
  if (from < 0 || from > count) return *text;
  const int64_t to = std::min(length < 0 ? count + length : from + length, count);
  if (to <= from) return "";
  const size_t begin = starts[static_cast<size_t>(from)];
  return text->substr(begin, to == count ? std::string::npos : starts[static_cast<size_t>(to)] - begin);
}

json Missing(OperatorCall& call) {
  const bool list = !call.operands.empty() && call.operands[0].is_array();
  json missing = json::array();
  const auto look = [&](const json& path) {
    if (FindVariable(path, call.data) == nullptr) missing.push_back(path);
  };
  if (list) {
    for (const json& path : call.operands[0]) look(path);
  } else {
    for (const json& path : call.operands) look(path);
  }
  return missing;
}

json MissingSome(OperatorCall& call) {
  const double needed = Number(call, 0);
  const json& paths = At(call.operands, 1);
  json missing = json::array();
  if (!paths.is_array()) return missing;
  for (const json& path : paths) {
    if (FindVariable(path, call.data) == nullptr) missing.push_back(path);
  }
  const bool enough = static_cast<double>(paths.size() - missing.size()) >= needed;
  return enough ? json::array() : missing;
}

// Operators of flagd's own answer null to operands that they cannot take: targeting then leaves it to the default.
template <bool (*Holds)(std::string_view, std::string_view)>
json CompareText(OperatorCall& call) {
  const std::string *text = Text(At(call.operands, 0)), *part = Text(At(call.operands, 1));
  if (call.operands.size() != 2 || text == nullptr || part == nullptr) return nullptr;
  return Holds(*text, *part);
}
bool StartsWith(std::string_view text, std::string_view part) { return text.starts_with(part); }
bool EndsWith(std::string_view text, std::string_view part) { return text.ends_with(part); }

json SemVerOperator(OperatorCall& call) {
  const auto version = [](const json& v) { return v.is_number() || v.is_string() ? *ScalarText(v) : std::string(); };
  const std::string* op = Text(At(call.operands, 1));
  if (call.operands.size() != 3 || op == nullptr) return nullptr;
  const std::optional<bool> matches = SemVerMatches(version(call.operands[0]), *op, version(call.operands[2]));
  return matches.has_value() ? json(*matches) : json();
}

// flagd's `fractional`, second version (its bucketing was changed in 2026): the hash's share of the sum of weights, in
// whole numbers, so that a share is exact to one 2^31st. Recipe: flags/flagd/README.md.
struct Share {
  const json* variant;
  int64_t weight;
};

std::optional<Share> ReadShare(const json& entry) {
  if (!entry.is_array() || entry.empty() || entry[0].is_structured()) return std::nullopt;
  Share share{&entry[0], 1};
  if (entry.size() < 2 || entry[1].is_null()) return share;
  if (!entry[1].is_number()) return std::nullopt;
  const auto weight = entry[1].get<double>();
  if (weight != std::trunc(weight) || weight > static_cast<double>(kMaxWeightSum)) return std::nullopt;
  share.weight = weight < 0 ? 0 : static_cast<int64_t>(weight);  // ramps that are computed may begin below zero
  return share;
}

json Fractional(OperatorCall& call) {
  const Operands& o = call.operands;
  if (o.empty()) return nullptr;
  std::string key;
  size_t first = 1;
  if (const std::string* bucket_by = Text(o[0])) {
    key = *bucket_by;
  } else {
    const json* targeting_key = FindVariable("targetingKey", call.data);
    const std::string* target = targeting_key == nullptr ? nullptr : Text(*targeting_key);
    if (target == nullptr || target->empty()) return nullptr;
    const json* flag_key = FindVariable("$flagd.flagKey", call.data);
    key = (flag_key == nullptr ? "" : ScalarText(*flag_key).value_or("")) + *target;
    first = o[0].is_null() ? 1 : 0;
  }
  std::vector<Share> shares;
  int64_t sum = 0;
  for (size_t i = first; i < o.size(); ++i) {
    const std::optional<Share> share = ReadShare(o[i]);
    if (!share.has_value()) return nullptr;
    sum += share->weight;
    if (sum > kMaxWeightSum) return nullptr;
    shares.push_back(*share);
  }
  const uint64_t bucket = (uint64_t{Murmur3X86_32(key)} * static_cast<uint64_t>(sum)) >> 32;
  uint64_t end = 0;
  for (const Share& share : shares) {
    end += static_cast<uint64_t>(share.weight);
    if (bucket < end) return *share.variant;
  }
  return nullptr;  // no weight at all
}

struct Named {
  std::string_view name;
  Operator run;
};
constexpr std::array kOperators = std::to_array<Named>({
    {"==", Compare<LooselyEqual>},
    {"===", Compare<StrictlyEqual>},
    {"!=", CompareNot<LooselyEqual>},
    {"!==", CompareNot<StrictlyEqual>},
    {"<", Order<Less>},
    {"<=", Order<LessOrEqual>},
    {">", Order<Greater>},
    {">=", Order<GreaterOrEqual>},
    {"!", Not},
    {"!!", NotNot},
    {"+", Add},
    {"-", Subtract},
    {"*", Multiply},
    {"/", Divide},
    {"%", Modulo},
    {"max", Max},
    {"min", Min},
    {"in", In},
    {"merge", Merge},
    {"cat", Cat},
    {"substr", Substr},
    {"missing", Missing},
    {"missing_some", MissingSome},
    {"starts_with", CompareText<StartsWith>},
    {"ends_with", CompareText<EndsWith>},
    {"sem_ver", SemVerOperator},
    {"fractional", Fractional},
});

}  // namespace

Operator FindOperator(std::string_view name) {
  const auto it = std::find_if(kOperators.begin(), kOperators.end(), [&](const Named& o) { return o.name == name; });
  return it == kOperators.end() ? nullptr : it->run;
}

const json* FindVariable(const json& path, const json& data) {
  const std::optional<std::string> text = ScalarText(path);
  if (!text.has_value()) return nullptr;
  const json* at = &data;
  for (std::string_view rest = *text; !rest.empty();) {
    const size_t dot = std::min(rest.find('.'), rest.size());
    const std::string_view step = rest.substr(0, dot);
    rest.remove_prefix(std::min(dot + 1, rest.size()));
    if (step.empty()) continue;
    if (at->is_object()) {
      const auto it = at->find(std::string(step));
      if (it == at->end()) return nullptr;
      at = &*it;
    } else if (at->is_array()) {
      size_t index = 0;
      const auto [end, failed] = std::from_chars(step.data(), step.data() + step.size(), index);
      if (failed != std::errc() || end != step.data() + step.size() || index >= at->size()) return nullptr;
      at = &(*at)[index];
    } else {
      return nullptr;
    }
  }
  return at->is_null() ? nullptr : at;
}

}  // namespace sluice::flags::flagd
