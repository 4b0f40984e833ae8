// JSONLogic (jsonlogic.com) with flagd's operators, bounded so that no rule can stop a server.
// Where jsonlogic.com and flagd's engine (which defines every bucket) differ, flagd counts, but what stops flagd's
// engine with an error on odd operands is answered as jsonlogic.com does. The list: flags/flagd/README.md.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace sluice::flags::flagd {

struct LogicLimits {
  int max_depth = 128;                 // of operators and lists within each other
  int64_t max_steps = 200'000;         // operators run and values copied
  size_t max_text_bytes = 256 * 1024;  // of one string that cat builds
};

// What `rule` says about `data`. Pure: the same answer for the same arguments. `shared_rules`: an object of rules by
// name, for {"$ref": name}; null: none. INVALID_ARGUMENT: an operator or shared rule that does not exist, operands that
// an operator cannot take, a result that is no JSON (infinity). RESOURCE_EXHAUSTED: a limit.
absl::StatusOr<nlohmann::json> ApplyLogic(const nlohmann::json& rule, const nlohmann::json& data,
                                          const nlohmann::json* shared_rules = nullptr, const LogicLimits& limits = {});

// True for every operator that ApplyLogic knows.
bool IsOperator(std::string_view name);

}  // namespace sluice::flags::flagd
