// Targeting rules of our own: a list of conditions, and what holds for a request that fulfils all of them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "flags/bucket.h"
#include "flags/semver.h"

namespace sluice::flags {

struct EvaluationContext;

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
// Looked up with a string_view, without allocation.
using KeySet = absl::flat_hash_set<std::string, TextHash, std::equal_to<>>;

// One attribute of the request and one test of it. A missing or empty attribute fulfils nothing.
struct Condition {
  enum class Attribute { kKey, kTenant, kUser, kModel, kClass, kHeader };
  enum class Test { kEquals, kIn, kPrefix, kSemver, kPercentage };

  Attribute attribute = Attribute::kKey;
  std::string header;  // kHeader: the name, lower case
  Test test = Test::kEquals;
  std::string text;                      // kEquals, kPrefix, and the range of kSemver as written
  std::shared_ptr<const KeySet> values;  // kIn: not null
  VersionRange range;                    // kSemver
  RolloutBps bps = 0;                    // kPercentage: this share of the attribute's values, by BucketV2
  std::string salt;                      // kPercentage: FlagSet::Create sets "<flag's salt>-<rule's name>"
};

struct Rule {
  enum class Then { kIn, kOut, kVariant, kPercentage };

  std::string name;
  std::vector<Condition> when;  // all must hold; not empty
  Then then = Then::kOut;
  std::string variant;  // kVariant
  RolloutBps bps = 0;   // kPercentage: in place of the flag's own, with the flag's salt
};

// Headers that carry secrets: no rule may look at them, lest they come up in an explanation.
bool IsSecretHeader(std::string_view name);

// "tenant", "header:x-app"
std::string AttributeName(const Condition& condition);
std::string_view AttributeValue(const Condition& condition, const EvaluationContext& context);

// Pure, no allocation.
bool Matches(const Condition& condition, const EvaluationContext& context);

// "tenant in (3 values)", "header:x-app semver ^1.2.0"
std::string Describe(const Condition& condition);
// "in", "out", "variant b", "25 %"
std::string DescribeThen(const Rule& rule);

}  // namespace sluice::flags
