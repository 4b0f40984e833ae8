#include "flags/flag_faults.h"

#include <chrono>

#include "fmt/format.h"
#include "tests/flags/flags_test_support.h"

namespace sluice::flags {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> FaultsOf(const std::vector<Flag>& flags) {
  std::vector<std::string> out;
  for (const FlagFault& f : FindFlagFaults(flags)) {
    out.push_back(fmt::format("{}.{}: {}; allowed: {}", f.flag, f.field, f.what, f.allowed));
  }
  return out;
}

Flag Nested(std::string_view key, std::string_view parent) {
  Flag flag = On(key, 100, parent);
  flag.parent_share = ParentShare::kNested;
  return flag;
}

TEST(FlagFaultsTest, NestedSharesTakeTheParentsBuckets) {
  Flag top = On("top", 100), same = Nested("same", "top"), salt = Nested("salt", "top"),
       version = Nested("version", "top");
  top.salt = "s";
  same.salt = "s";
  salt.salt = "other";
  version.hash_version = 1;
  EXPECT_THAT(
      FaultsOf({top, same, salt, version, Nested("lone", "")}),
      ElementsAre("salt.hash_seed: \"other\" contradicts parent_share nested; allowed: \"s\" (that of top), or none",
                  "version.hash_version: 1 contradicts parent_share nested; allowed: 2 (that of top), or none",
                  "lone.parent_share: nested, but there is no parent; allowed: nested with a parent only"));
}

TEST(FlagFaultsTest, ANestedChildOfHundredBucketsHasWholePercents) {
  Flag top = On("top", 100), child = Nested("child", "top");
  top.hash_version = 1;
  child.hash_version = 0;  // the parent's
  EXPECT_THAT(FaultsOf({top, child}), IsEmpty());
  child.rollout_bps = 150;
  EXPECT_THAT(FaultsOf({top, child}),
              ElementsAre("child.rollout_percentage: got 1.5 %; allowed: whole percents, as hash_version is 1"));
}

TEST(FlagFaultsTest, Variants) {
  Flag flag = On("f", 100);
  flag.variants = {Of("a", 1, 0), Of("b", 2, 0)};
  EXPECT_THAT(FaultsOf({flag}), ElementsAre("f.variants: the weights sum up to 0; allowed: 1 to 1000000"));
  flag.variants = {Of("a", 1, 1), Of("a", 2, 1)};
  EXPECT_EQ(FaultsOf({flag}).at(0), "f.variants: the name \"a\" is empty or given twice; allowed: a name once");
  flag.variants = {{.name = "a", .weight = 1}};
  EXPECT_THAT(FaultsOf({flag}), ElementsAre("f.variants: a has no value; allowed: a value"));
}

TEST(FlagFaultsTest, Rules) {
  Flag flag = On("f", 100);
  flag.hash_version = 1;
  flag.rules = {{.name = "empty"},
                {.name = "variant",
                 .when = {{.attribute = Condition::Attribute::kHeader, .header = "cookie", .text = "x"}},
                 .then = Rule::Then::kVariant,
                 .variant = "v"},
                {.name = "in", .when = {{.test = Condition::Test::kIn}}},
                {.name = "percent",
                 .when = {{.test = Condition::Test::kPercentage, .bps = 10001}},
                 .then = Rule::Then::kPercentage,
                 .bps = 50}};
  EXPECT_THAT(FaultsOf({flag}),
              ElementsAre("f.rules.empty: has no condition; allowed: at least one condition",
                          "f.rules.variant: the header \"cookie\" carries a secret; allowed: other headers",
                          "f.rules.variant: there is no variant \"v\"; allowed: a name under variants",
                          "f.rules.in: has no values; allowed: a list for every in",
                          "f.rules.percent: got 100.01 %; allowed: 0 to 100 %",
                          "f.rules.percent: got 0.5 %; allowed: whole percents, as hash_version is 1"));
}

TEST(FlagFaultsTest, SchedulesEndAfterTheyStart) {
  Flag flag = On("f", 100);
  flag.schedule = {WallTime(std::chrono::seconds(5)), WallTime(std::chrono::seconds(5))};
  EXPECT_THAT(FaultsOf({flag}), ElementsAre("f.schedule: ends before it starts; allowed: a start before the end"));
}

}  // namespace
}  // namespace sluice::flags
