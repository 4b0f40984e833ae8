// The operators that see all their operands evaluated: a name and a pure function each. Used by json_logic only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

namespace sluice::flags::flagd {

using Operands = std::vector<nlohmann::json>;

struct OperatorCall {
  Operands operands;
  const nlohmann::json& data;
  size_t max_text_bytes;
  std::string error;  // set: what the operands are not good for; the result is then not looked at
};

using Operator = nlohmann::json (*)(OperatorCall& call);

// Null when there is none of that name.
Operator FindOperator(std::string_view name);

// What `path` ("a.b.0"; "" or nothing: all of it) leads to in `data`; null when it leads nowhere or to null.
const nlohmann::json* FindVariable(const nlohmann::json& path, const nlohmann::json& data);

}  // namespace sluice::flags::flagd
