#include "services/grpc/oip_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/strings.h"

namespace sluice::services {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxJsonBytes = 64 << 10;
constexpr unsigned kEverywhere = kOipTensor | kOipParameter | kOipJson;
constexpr unsigned kNotInJson = kOipTensor | kOipParameter;
constexpr uint64_t kMaxTimeoutUs = 86'400'000'000;  // a day, as deadline_ms of the native API

using Request = OipRequest;
using Value = OipValue;

int Int32(const Value& v) { return static_cast<int>(std::get<int64_t>(v)); }
float Fp32(const Value& v) { return static_cast<float>(std::get<double>(v)); }
bool Bool(const Value& v) { return std::get<bool>(v); }
const std::string& Text(const Value& v) { return std::get<std::string>(v); }
sluice::v1::Sampling& Sampling(Request& r) { return *r.generate.mutable_sampling(); }

bool SetPriority(Request& r, const Value& v) {  // Triton counts as we do: the lower, the more urgent
  const auto priority = std::get<uint64_t>(v);
  if (priority > sluice::v1::PRIORITY_CLASS_BATCH) return false;
  r.generate.set_priority_class(static_cast<sluice::v1::PriorityClass>(priority));
  return true;
}

bool SetTimeout(Request& r, const Value& v) {
  const auto timeout_us = std::get<uint64_t>(v);
  if (timeout_us > kMaxTimeoutUs) return false;
  r.timeout = std::chrono::microseconds(timeout_us);
  return true;
}

#define SLUICE_OIP_SET(statement) [](Request& r, const Value& v) { return (statement), true; }

// In the order of ModelMetadata.
constexpr std::array kOptions = {
    OipOption{"text_input", "BYTES", kOipTensor, SLUICE_OIP_SET(r.generate.set_prompt(Text(v)))},
    OipOption{"stream", "BOOL", kNotInJson, SLUICE_OIP_SET(r.stream = Bool(v))},
    OipOption{"sampling_parameters", "BYTES", kNotInJson, nullptr},
    OipOption{"max_tokens", "INT32", kEverywhere, SLUICE_OIP_SET(r.generate.set_max_tokens(Int32(v)))},
    OipOption{"temperature", "FP32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_temperature(Fp32(v)))},
    OipOption{"top_p", "FP32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_top_p(Fp32(v)))},
    OipOption{"top_k", "INT32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_top_k(Int32(v)))},
    OipOption{"min_p", "FP32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_min_p(Fp32(v)))},
    OipOption{"repetition_penalty", "FP32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_repetition_penalty(Fp32(v)))},
    OipOption{"presence_penalty", "FP32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_presence_penalty(Fp32(v)))},
    OipOption{"frequency_penalty", "FP32", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_frequency_penalty(Fp32(v)))},
    OipOption{"seed", "UINT64", kEverywhere, SLUICE_OIP_SET(Sampling(r).set_seed(std::get<uint64_t>(v)))},
    OipOption{"stop", "BYTES", kEverywhere, SLUICE_OIP_SET(r.generate.add_stop(Text(v))), "BYTES", /*list=*/true},
    OipOption{"ignore_eos", "BOOL", kEverywhere, SLUICE_OIP_SET(r.generate.set_ignore_eos(Bool(v)))},
    OipOption{"truncate_prompt", "BOOL", kNotInJson, SLUICE_OIP_SET(r.generate.set_truncate_prompt(Bool(v)))},
    OipOption{"exclude_input_in_output", "BOOL", kNotInJson, SLUICE_OIP_SET(r.exclude_input = Bool(v))},
    OipOption{"priority", "UINT64", kOipParameter, SetPriority,
              "0 or 3 (standard), 1 (system), 2 (interactive) or 4 (batch)"},
    OipOption{"timeout", "UINT64", kOipParameter, SetTimeout, "microseconds, 0 to 86400000000"},
    OipOption{"sequence_id", "ID", kOipParameter, SLUICE_OIP_SET(r.generate.set_conversation(Text(v))),
              "a number or a string"},
    // A conversation has no start and end here: accepted because Triton's client always sends them with an id.
    OipOption{"sequence_start", "BOOL", kOipParameter, [](Request&, const Value&) { return true; }},
    OipOption{"sequence_end", "BOOL", kOipParameter, [](Request&, const Value&) { return true; }},
    OipOption{"tenant", "BYTES", kOipParameter, SLUICE_OIP_SET(r.generate.set_tenant(Text(v)))},
    OipOption{"user", "BYTES", kOipParameter, SLUICE_OIP_SET(r.generate.set_user(Text(v)))},
    OipOption{"triton_enable_empty_final_response", "BOOL", kOipParameter,
              SLUICE_OIP_SET(r.empty_final_response = Bool(v))},
};
#undef SLUICE_OIP_SET

template <typename T>
std::optional<T> ParseNumber(const std::string& text) {
  T number{};
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || at != end) return std::nullopt;
  return number;
}

template <typename T>  // int64_t or uint64_t
std::optional<OipValue> ToInteger(const OipValue& value, T min, T max) {
  std::optional<T> number;
  if (const auto* i = std::get_if<int64_t>(&value); i != nullptr && std::in_range<T>(*i)) number = static_cast<T>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value); u != nullptr && std::in_range<T>(*u)) number = static_cast<T>(*u);
  if (const auto* text = std::get_if<std::string>(&value)) number = ParseNumber<T>(*text);
  if (!number.has_value() || *number < min || *number > max) return std::nullopt;
  return *number;
}

std::optional<OipValue> ToFp32(const OipValue& value) {
  std::optional<double> number;
  if (const auto* d = std::get_if<double>(&value)) number = *d;
  if (const auto* i = std::get_if<int64_t>(&value)) number = static_cast<double>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value)) number = static_cast<double>(*u);
  if (const auto* text = std::get_if<std::string>(&value)) number = ParseNumber<double>(*text);
  if (!number.has_value() || !(std::abs(*number) <= std::numeric_limits<float>::max())) return std::nullopt;
  return *number;
}

std::optional<OipValue> ToBool(const OipValue& value) {
  if (std::holds_alternative<bool>(value)) return value;
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && (*text == "true" || *text == "false")) return *text == "true";
  return std::nullopt;
}

std::optional<OipValue> ToId(const OipValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return *i == 0 ? std::string() : std::to_string(*i);
  if (const auto* u = std::get_if<uint64_t>(&value)) return *u == 0 ? std::string() : std::to_string(*u);
  if (std::holds_alternative<std::string>(value)) return value;
  return std::nullopt;
}

// `value` as what `datatype` decodes to; nothing when it is not one.
std::optional<OipValue> Convert(const OipValue& value, std::string_view datatype) {
  if (datatype == "BOOL") return ToBool(value);
  if (datatype == "INT32") {
    return ToInteger<int64_t>(value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max());
  }
  if (datatype == "UINT64") return ToInteger<uint64_t>(value, 0, std::numeric_limits<uint64_t>::max());
  if (datatype == "FP32") return ToFp32(value);
  if (datatype == "ID") return ToId(value);
  return std::holds_alternative<std::string>(value) ? std::optional(value) : std::nullopt;
}

// For people; long texts are cut.
std::string Show(const OipValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) return std::visit([](const auto& v) { return fmt::format("{}", v); }, value);
  constexpr size_t kShown = 32;
  return fmt::format("\"{}\"{}", ReplaceInvalidUtf8(text->substr(0, kShown)), text->size() > kShown ? "..." : "");
}

std::optional<OipValue> FromJson(const Json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned()) return json.get<uint64_t>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number_float()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  return std::nullopt;
}

}  // namespace

std::span<const OipOption> OipOptions() { return kOptions; }

const OipOption* FindOipOption(std::string_view name, OipPlace place) {
  const auto it = std::find_if(kOptions.begin(), kOptions.end(), [&](const OipOption& option) {
    return option.name == name && (option.places & place) != 0;
  });
  return it == kOptions.end() ? nullptr : &*it;
}

std::string OipOptionNames(OipPlace place) {
  std::string names;
  for (const OipOption& option : kOptions) {
    if ((option.places & place) == 0) continue;
    fmt::format_to(std::back_inserter(names), "{}{}", names.empty() ? "" : ", ", option.name);
  }
  return names;
}

void OipOptionReader::Violate(const std::string& field, std::string description) {
  violations_.push_back({field, std::move(description)});
}

void OipOptionReader::Set(const OipOption& option, const std::string& field, std::span<const OipValue> values) {
  if (!given_.insert(option.name).second) {
    return Violate(field,
                   fmt::format("{} was given twice (as a tensor, a parameter or in sampling_parameters)", option.name));
  }
  for (const OipValue& value : values) {
    const std::optional<OipValue> converted = Convert(value, option.datatype);
    const auto* text = converted.has_value() ? std::get_if<std::string>(&*converted) : nullptr;
    if (text != nullptr && !IsValidUtf8(*text)) return Violate(field, "not UTF-8");
    if (text != nullptr && option.set == nullptr) return SetSamplingParameters(*text);
    if (!converted.has_value() || !option.set(request_, *converted)) {
      return Violate(field, fmt::format("got {}; wants {}", Show(value), option.wants));
    }
  }
}

void OipOptionReader::SetParameter(const std::string& name, const inference::InferParameter& parameter) {
  using Parameter = inference::InferParameter;
  const std::string field = "parameters." + name;
  const OipOption* option = FindOipOption(name, kOipParameter);
  if (option == nullptr) {
    return Violate(field, fmt::format("no such parameter; allowed: {}", OipOptionNames(kOipParameter)));
  }
  OipValue value;
  switch (parameter.parameter_choice_case()) {
    case Parameter::kBoolParam:
      value = parameter.bool_param();
      break;
    case Parameter::kInt64Param:
      value = int64_t{parameter.int64_param()};
      break;
    case Parameter::kUint64Param:
      value = uint64_t{parameter.uint64_param()};
      break;
    case Parameter::kDoubleParam:
      value = parameter.double_param();
      break;
    case Parameter::kStringParam:
      value = parameter.string_param();
      break;
    case Parameter::PARAMETER_CHOICE_NOT_SET:
      return Violate(field, "has no value");
  }
  Set(*option, field, {&value, 1});
}

void OipOptionReader::SetSamplingParameters(const std::string& json) {
  constexpr std::string_view kField = "sampling_parameters";
  if (json.size() > kMaxJsonBytes) {
    return Violate(std::string(kField), fmt::format("got {} bytes; allowed up to {}", json.size(), kMaxJsonBytes));
  }
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return Violate(std::string(kField), "not a JSON object");
  for (const auto& [name, json_value] : object.items()) {
    const std::string field = fmt::format("{}.{}", kField, name);
    const OipOption* option = FindOipOption(name, kOipJson);
    if (option == nullptr) {
      Violate(field, fmt::format("no such key; allowed: {}", OipOptionNames(kOipJson)));
      continue;
    }
    if (json_value.is_null()) continue;  // as vLLM's clients say "default"
    std::vector<OipValue> values;
    const bool is_list = json_value.is_array() && option->list;
    bool scalar = true;
    for (const Json& element : is_list ? json_value : Json::array({json_value})) {
      std::optional<OipValue> value = FromJson(element);
      scalar = scalar && value.has_value();
      if (value.has_value()) values.push_back(*std::move(value));
    }
    if (!scalar) {
      Violate(field, option->list ? "wants a string or a list of strings" : fmt::format("wants {}", option->wants));
      continue;
    }
    Set(*option, field, values);
  }
}

}  // namespace sluice::services
