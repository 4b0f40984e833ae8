#include "services/grpc/struct_codec.h"

#include <cmath>

namespace sluice::services {
namespace {

using google::protobuf::Value;
using nlohmann::json;

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53

json ToJson(const Value& value) {
  switch (value.kind_case()) {
    case Value::kBoolValue:
      return value.bool_value();
    case Value::kStringValue:
      return value.string_value();
    case Value::kStructValue:
      return StructToJson(value.struct_value());
    case Value::kNumberValue: {
      const double number = value.number_value();
      if (number == std::trunc(number) && std::abs(number) <= kExactIntegers) return static_cast<int64_t>(number);
      return number;
    }
    case Value::kListValue: {
      json list = json::array();
      for (const Value& element : value.list_value().values()) list.push_back(ToJson(element));
      return list;
    }
    default:
      return nullptr;
  }
}

void FromJson(const json& value, Value& out) {
  if (value.is_boolean()) {
    out.set_bool_value(value.get<bool>());
  } else if (value.is_number()) {
    out.set_number_value(value.get<double>());
  } else if (const auto* text = value.get_ptr<const std::string*>()) {
    out.set_string_value(*text);
  } else if (value.is_object()) {
    JsonToStruct(value, *out.mutable_struct_value());
  } else if (value.is_array()) {
    auto& list = *out.mutable_list_value();
    for (const json& element : value) FromJson(element, *list.add_values());
  } else {
    out.set_null_value(google::protobuf::NULL_VALUE);
  }
}

}  // namespace

json StructToJson(const google::protobuf::Struct& fields) {
  json object = json::object();
  for (const auto& [name, value] : fields.fields()) object[name] = ToJson(value);
  return object;
}

void JsonToStruct(const json& object, google::protobuf::Struct& out) {
  if (!object.is_object()) return;
  for (const auto& [name, value] : object.items()) FromJson(value, (*out.mutable_fields())[name]);
}

}  // namespace sluice::services
