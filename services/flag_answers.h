// What the flag gate answers to OpenFeature clients, whatever the wire: flagd's evaluation API and OFREP share it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "flags/flag_changes.h"
#include "flags/flag_set.h"
#include "nlohmann/json.hpp"

namespace sluice::services {

// OpenFeature's error codes that a flag can end with.
enum class FlagError { kNone, kFlagNotFound, kTypeMismatch, kParseError, kGeneral };
std::string_view FlagErrorCode(FlagError error);  // "FLAG_NOT_FOUND"; "" for kNone

struct FlagAnswer {
  std::string key;
  nlohmann::json value;  // null: the default in the client's code holds
  std::string variant;   // empty exactly when the default in the client's code holds, or on an error
  std::string reason;  // flagd's words: STATIC (clients may cache it), SPLIT, TARGETING_MATCH, DEFAULT, DISABLED, ERROR
  nlohmann::json metadata = nlohmann::json::object();
  FlagError error = FlagError::kNone;
  std::string message;  // of the error
};

// The answer for one client. `attributes`: an object, what the client sent; its targetingKey, tenant, user, model,
// class and headers (an object of strings) are what native rules look at. A native flag answers with a boolean (in, and
// not in dry_run), or with its variant's value. One that is off, held out by its parent or by an emergency switch
// answers false; where its values are no booleans it answers DISABLED, and the default in the client's code holds.
// Pure.
FlagAnswer AnswerFlag(const flags::FlagSet& set, std::string_view key, const nlohmann::json& attributes, WallTime now);

// Of each flag of the set, by key.
std::vector<FlagAnswer> AnswerAllFlags(const flags::FlagSet& set, const nlohmann::json& attributes, WallTime now);

// Flags that differ, by key: "write" (new), "update" or "delete", as in flagd's configuration_change.
using FlagChanges = std::map<std::string, std::string_view>;
FlagChanges CompareFlags(const flags::FlagSet& before, const flags::FlagSet& after);
// Of flags whose schedule began or ended, and of those below them.
FlagChanges ScheduledFlags(const flags::FlagSet& set, const std::vector<flags::FlagChange>& changes);

}  // namespace sluice::services
