// Flag definitions in flagd's JSON (https://flagd.dev/schema/v0/flagd.json): read whole, checked whole, then evaluated.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "flags/flag.h"
#include "flags/flagd/strict_json.h"
#include "flags/targeting.h"
#include "nlohmann/json.hpp"

namespace sluice::flags::flagd {

// What all flags of a document share; held once, so that a large document does not multiply by its flags.
struct SharedParts {
  nlohmann::json rules = nlohmann::json::object();     // $evaluators
  nlohmann::json metadata = nlohmann::json::object();  // of the flag set
  nlohmann::json static_context =
      nlohmann::json::object();   // attributes that every evaluation gets, over the request's
  std::set<std::string> headers;  // that the rules look at
};

// One flag's targeting. Evaluate: kStatic without targeting rules; kTargetingMatch when they named a variant; kDefault
// when they left it to defaultVariant (no variant: to the default in the client's code); kError with an `error` that
// begins with flagd's code "PARSE_ERROR: " (the rules cannot be run) or "GENERAL: " (they named no variant).
// Rules see `attributes` of the context when it has some, else targetingKey, tenant, user, model and class; always the
// headers that they name as "headers.<name>", and $flagd.flagKey and $flagd.timestamp (Unix seconds).
class FlagdTargeting final : public Targeting {
 public:
  struct Parts {
    std::vector<Variant> variants;
    std::string default_variant;                         // empty: the default in the client's code
    nlohmann::json rule;                                 // null or {}: none
    nlohmann::json metadata = nlohmann::json::object();  // the flag's own
    std::shared_ptr<const SharedParts> shared;           // not null
  };
  explicit FlagdTargeting(Parts parts);

  Result Evaluate(std::string_view flag_key, const EvaluationContext& context) const override;
  std::vector<std::string> HeaderNames() const override;

  const std::vector<Variant>& variants() const { return parts_.variants; }
  // The flag set's metadata under the flag's own; flat.
  nlohmann::json Metadata() const;
  bool SameDefinition(const FlagdTargeting& other) const;

 private:
  const Variant* Find(std::string_view name) const;
  nlohmann::json Attributes(std::string_view flag_key, const EvaluationContext& context) const;

  const Parts parts_;
  std::set<std::string> headers_;  // that the rules look at
};

struct Definitions {
  std::vector<Flag> flags;  // key, enabled and a FlagdTargeting (with the variants) each; layer kRemote; 100 %
  nlohmann::json metadata = nlohmann::json::object();  // of the flag set
  std::vector<std::string> warnings;                   // faults of rules, when they are not refused
};

struct ParseOptions {
  JsonLimits json;
  size_t max_flags = 10'000;
  size_t max_shared_rules = 1'000;
  // false: as flagd does, a fault in a targeting rule is a warning, and the flag answers with an error when the rule is
  // run. Everything else is refused either way.
  bool refuse_bad_rules = true;
  nlohmann::json static_context = nlohmann::json::object();
};

// INVALID_ARGUMENT naming the faults (the first 20), each by its path: what was found and what is allowed.
absl::StatusOr<Definitions> ParseDefinitions(std::string_view text, const ParseOptions& options = {});

}  // namespace sluice::flags::flagd
