#include "flags/rule.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "flags/flag.h"
#include "fmt/format.h"

namespace sluice::flags {

bool IsSecretHeader(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kSecret = {"authorization", "proxy-authorization", "cookie",
                                                              "set-cookie",    "x-api-key",           "api-key"};
  return std::find(kSecret.begin(), kSecret.end(), name) != kSecret.end();
}

std::string AttributeName(const Condition& condition) {
  switch (condition.attribute) {
    case Condition::Attribute::kKey:
      return "key";
    case Condition::Attribute::kTenant:
      return "tenant";
    case Condition::Attribute::kUser:
      return "user";
    case Condition::Attribute::kModel:
      return "model";
    case Condition::Attribute::kClass:
      return "class";
    case Condition::Attribute::kHeader:
      return "header:" + condition.header;
  }
  SLUICE_CHECK(false, "an Attribute outside its enum");
}

std::string_view AttributeValue(const Condition& condition, const EvaluationContext& context) {
  switch (condition.attribute) {
    case Condition::Attribute::kKey:
      return context.targeting_key;
    case Condition::Attribute::kTenant:
      return context.tenant;
    case Condition::Attribute::kUser:
      return context.user;
    case Condition::Attribute::kModel:
      return context.model;
    case Condition::Attribute::kClass:
      return context.qos_class;
    case Condition::Attribute::kHeader:
      return context.headers == nullptr ? std::string_view() : context.headers->Header(condition.header);
  }
  SLUICE_CHECK(false, "an Attribute outside its enum");
}

bool Matches(const Condition& condition, const EvaluationContext& context) {
  const std::string_view value = AttributeValue(condition, context);
  if (value.empty()) return false;
  switch (condition.test) {
    case Condition::Test::kEquals:
      return value == condition.text;
    case Condition::Test::kIn:
      return condition.values->contains(value);
    case Condition::Test::kPrefix:
      return value.starts_with(condition.text);
    case Condition::Test::kSemver: {
      const std::optional<Version> version = ParseVersion(value);
      return version.has_value() && condition.range.Contains(*version);
    }
    case Condition::Test::kPercentage:
      return BucketV2(condition.salt, value) < condition.bps;
  }
  SLUICE_CHECK(false, "a Test outside its enum");
}

std::string Describe(const Condition& condition) {
  const std::string name = AttributeName(condition);
  switch (condition.test) {
    case Condition::Test::kEquals:
      return fmt::format("{} equals \"{}\"", name, condition.text);
    case Condition::Test::kIn:
      return fmt::format("{} in ({} values)", name, condition.values->size());
    case Condition::Test::kPrefix:
      return fmt::format("{} prefix \"{}\"", name, condition.text);
    case Condition::Test::kSemver:
      return fmt::format("{} semver {}", name, condition.text);
    case Condition::Test::kPercentage:
      return fmt::format("{} percentage {}", name, PercentText(condition.bps));
  }
  SLUICE_CHECK(false, "a Test outside its enum");
}

std::string DescribeThen(const Rule& rule) {
  switch (rule.then) {
    case Rule::Then::kIn:
      return "in";
    case Rule::Then::kOut:
      return "out";
    case Rule::Then::kVariant:
      return "variant " + rule.variant;
    case Rule::Then::kPercentage:
      return PercentText(rule.bps);
  }
  SLUICE_CHECK(false, "a Then outside its enum");
}

}  // namespace sluice::flags
