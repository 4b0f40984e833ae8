#include "flags/rule.h"

#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

namespace sluice::flags {
namespace {

using Attribute = Condition::Attribute;
using Check = Condition::Test;

Condition If(Attribute attribute, Check test, std::string text) {
  Condition out{.attribute = attribute, .test = test, .text = std::move(text)};
  if (test == Check::kSemver) out.range = *VersionRange::Parse(out.text);
  return out;
}

TEST(RuleTest, EachAttributeIsItsOwn) {
  const TestHeaders headers(std::map<std::string, std::string, std::less<>>{{"x-app", "h"}});
  const EvaluationContext context{
      .targeting_key = "k", .tenant = "t", .user = "u", .model = "m", .qos_class = "c", .headers = &headers};
  const std::vector<std::pair<Attribute, std::string>> values = {{Attribute::kKey, "k"},   {Attribute::kTenant, "t"},
                                                                 {Attribute::kUser, "u"},  {Attribute::kModel, "m"},
                                                                 {Attribute::kClass, "c"}, {Attribute::kHeader, "h"}};
  for (const auto& [attribute, own] : values) {
    for (const auto& [other, value] : values) {
      Condition condition = If(attribute, Check::kEquals, value);
      condition.header = "x-app";
      EXPECT_EQ(Matches(condition, context), attribute == other) << Describe(condition);
      EXPECT_FALSE(Matches(condition, {})) << "an attribute that is not there fulfils nothing";
    }
  }
}

TEST(RuleTest, Tests) {
  const EvaluationContext context{.tenant = "acme-eu", .user = "1.4.0"};
  EXPECT_TRUE(Matches(If(Attribute::kTenant, Check::kPrefix, "acme"), context));
  EXPECT_FALSE(Matches(If(Attribute::kTenant, Check::kPrefix, "acme-us"), context));
  EXPECT_FALSE(Matches(If(Attribute::kTenant, Check::kEquals, "acme"), context));
  EXPECT_TRUE(Matches(If(Attribute::kUser, Check::kSemver, "^1.2.0"), context));
  EXPECT_FALSE(Matches(If(Attribute::kUser, Check::kSemver, "^2.0.0"), context));
  EXPECT_FALSE(Matches(If(Attribute::kTenant, Check::kSemver, "!=1.0.0"), context)) << "not a version";
  Condition in = If(Attribute::kTenant, Check::kIn, "");
  in.values = Keys({"a", "acme-eu"});
  EXPECT_TRUE(Matches(in, context));
  in.values = Keys({"a", "b"});
  EXPECT_FALSE(Matches(in, context));
}

TEST(RuleTest, PercentageSplitsTheValuesOfTheAttribute) {
  Condition condition{.attribute = Attribute::kTenant, .test = Check::kPercentage, .bps = 5300, .salt = "f-tenants"};
  EXPECT_FALSE(Matches(condition, {.tenant = "acme"}));  // bucket 5300
  condition.bps = 5301;
  EXPECT_TRUE(Matches(condition, {.tenant = "acme"}));
  int in = 0;
  for (int i = 0; i < 10000; ++i) {
    const std::string tenant = fmt::format("tenant-{}", i);
    in += Matches(condition, {.tenant = tenant});
  }
  EXPECT_NEAR(in, 5301, 200);  // 4 standard deviations
}

TEST(RuleTest, Descriptions) {
  Condition header = If(Attribute::kHeader, Check::kSemver, "^1.2.0");
  header.header = "x-app";
  EXPECT_EQ(Describe(header), "header:x-app semver ^1.2.0");
  Condition in = If(Attribute::kKey, Check::kIn, "");
  in.values = Keys({"a", "b"});
  EXPECT_EQ(Describe(in), "key in (2 values)");
  EXPECT_EQ(Describe(If(Attribute::kClass, Check::kEquals, "batch")), "class equals \"batch\"");
  EXPECT_EQ(DescribeThen({.then = Rule::Then::kPercentage, .bps = 2550}), "25.5 %");
  EXPECT_EQ(DescribeThen({.then = Rule::Then::kVariant, .variant = "b"}), "variant b");
}

TEST(RuleTest, SecretHeaders) {
  for (const char* name : {"authorization", "cookie", "x-api-key"}) EXPECT_TRUE(IsSecretHeader(name)) << name;
  EXPECT_FALSE(IsSecretHeader("x-app"));
}

}  // namespace
}  // namespace sluice::flags
