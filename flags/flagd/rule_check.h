// Looks at a targeting rule without running it: flagd's schema of targeting (open-feature/flagd-schemas).
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "nlohmann/json.hpp"

namespace sluice::flags::flagd {

// Adds each fault of `rule`, which stands at `path`: unknown operators, wrong numbers and types of operands, unknown
// shared rules. `shared_rules`: an object of them; may be null.
void CheckRule(const nlohmann::json& rule, const std::string& path, const nlohmann::json* shared_rules,
               std::vector<FieldViolation>& faults);

// Adds a fault for each shared rule that leads back to itself.
void CheckCycles(const nlohmann::json& shared_rules, std::vector<FieldViolation>& faults);

}  // namespace sluice::flags::flagd
