// Flags for the tests of flags/.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "flags/flag_set.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"

namespace sluice::flags {

inline Flag On(std::string_view key, RolloutBps bps, std::string_view parent = "") {
  return {.key = std::string(key), .enabled = true, .rollout_bps = bps, .parent = std::string(parent)};
}

inline std::shared_ptr<const FlagSet> Make(FlagSetSpec spec, uint64_t epoch = 7) {
  auto set = FlagSet::Create(std::move(spec), epoch);
  EXPECT_THAT(set, test::IsOk());
  return *set;
}

inline Variant Of(std::string name, const nlohmann::json& value, uint32_t weight = 1) {
  return {.name = std::move(name), .value = std::make_shared<const nlohmann::json>(value), .weight = weight};
}

inline std::shared_ptr<const KeySet> Keys(std::vector<std::string> keys) {
  return std::make_shared<const KeySet>(keys.begin(), keys.end());
}

class TestHeaders : public HeaderSource {
 public:
  explicit TestHeaders(std::map<std::string, std::string, std::less<>> headers) : headers_(std::move(headers)) {}
  std::string_view Header(std::string_view name) const override {
    const auto found = headers_.find(name);
    return found == headers_.end() ? std::string_view() : found->second;
  }

 private:
  std::map<std::string, std::string, std::less<>> headers_;
};

}  // namespace sluice::flags
