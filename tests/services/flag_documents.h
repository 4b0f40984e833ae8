// Flag sets for tests of the flag doors.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "flags/flag_set.h"
#include "flags/flagd/definitions.h"

namespace sluice::test {

inline constexpr std::string_view kFlagdDocument = R"({
  "flags": {
    "bool":     {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
    "string":   {"state": "ENABLED", "variants": {"hi": "hello", "bye": ""}, "defaultVariant": "hi",
                 "targeting": {"if": [{"==": [{"var": "leaving"}, true]}, "bye", null]}, "metadata": {"owner": "x"}},
    "int":      {"state": "ENABLED", "variants": {"ten": 10, "one": 1}, "defaultVariant": "ten"},
    "float":    {"state": "ENABLED", "variants": {"half": 0.5, "more": -1.75}, "defaultVariant": "half"},
    "object":   {"state": "ENABLED", "variants": {"a": {"list": [1, "b", null], "deep": {"x": true}}},
                 "defaultVariant": "a"},
    "no-default": {"state": "ENABLED", "variants": {"on": true, "off": false}},
    "disabled": {"state": "DISABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
    "broken":   {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on", "targeting": {"$ref": "gone"}},
    "wrong":    {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on",
                 "targeting": {"cat": ["no", "ne"]}}
  },
  "metadata": {"flagSetId": "tests"}
})";

// The document's flags beside three native ones: "native" at 50 % below "parent" at 100 %, and "shadow" in dry_run.
inline flags::FlagSetSpec FlagSpec(std::string_view document = kFlagdDocument) {
  auto definitions = flags::flagd::ParseDefinitions(document, {.refuse_bad_rules = false});
  SLUICE_CHECK(definitions.ok(), "the document is good");
  flags::FlagSetSpec spec{.flags = std::move(definitions->flags)};
  spec.flags.push_back({.key = "parent", .enabled = true, .rollout_bps = flags::kBuckets});
  spec.flags.push_back({.key = "native", .enabled = true, .rollout_bps = 5000, .parent = "parent"});
  spec.flags.push_back({.key = "shadow", .enabled = true, .rollout_bps = flags::kBuckets, .dry_run = true});
  return spec;
}

inline std::shared_ptr<const flags::FlagSet> MakeFlags(flags::FlagSetSpec spec = FlagSpec(), uint64_t epoch = 1) {
  auto set = flags::FlagSet::Create(std::move(spec), epoch);
  SLUICE_CHECK(set.ok(), "the flags are good");
  return *set;
}

}  // namespace sluice::test
