// A definition that picks a flag's variant by a program of its own (flagd's JSONLogic: flags/flagd/).
// Where a flag has one, the flag's own rules and percentage are inert; switches, parents and higher layers still apply.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "flags/flag.h"

namespace sluice::flags {

// Thread-safety: immutable. Never blocks; may allocate.
class Targeting {
 public:
  struct Result {
    const Variant* variant = nullptr;  // of this definition; null: the caller's default in code
    Reason reason = Reason::kDefault;  // kStatic, kTargetingMatch, kSplit, kDefault, kDisabled, kError
    std::string error;                 // kError: what is wrong with the definition or the context
  };
  virtual ~Targeting() = default;
  virtual Result Evaluate(std::string_view flag_key, const EvaluationContext& context) const = 0;
  // Names of the headers that it looks at, lower case.
  virtual std::vector<std::string> HeaderNames() const { return {}; }
};

}  // namespace sluice::flags
