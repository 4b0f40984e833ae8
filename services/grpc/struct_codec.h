// google.protobuf.Struct to JSON and back.
#pragma once

#include "google/protobuf/struct.pb.h"
#include "nlohmann/json.hpp"

namespace sluice::services {

// Numbers that are whole become integers. Depth is bounded by the parser of protobuf messages.
nlohmann::json StructToJson(const google::protobuf::Struct& fields);

// `object`: an object; of another value nothing is written.
void JsonToStruct(const nlohmann::json& object, google::protobuf::Struct& out);

}  // namespace sluice::services
