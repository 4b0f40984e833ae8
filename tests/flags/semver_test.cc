#include "flags/semver.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::flags {
namespace {

TEST(SemverTest, TakesVersionsOnly) {
  for (const char* text : {"0.0.0", "1.2.3", "1.2.3-rc.1", "1.0.0-0A.is.legal", "1.0.0+20130313144700", "1.0.0--",
                           "1.0.0-a+0.x-y", "1.0.0+001", "18446744073709551615.0.0"}) {
    EXPECT_TRUE(ParseVersion(text).has_value()) << text;
  }
  for (const char* text :
       {"", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.02.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "1.2.3+",
        "1.2.3+a+b", "1.2.3 ", "1.2.-3", "1.2.3-\xc3\xa9", "18446744073709551616.0.0", "1.2.3-a."}) {
    EXPECT_FALSE(ParseVersion(text).has_value()) << text;
  }
}

// The examples of semver.org §11, and then some, in ascending order.
TEST(SemverTest, Precedence) {
  const std::vector<std::string> ascending = {"0.9.9",
                                              "1.0.0-alpha",
                                              "1.0.0-alpha.1",
                                              "1.0.0-alpha.beta",
                                              "1.0.0-beta",
                                              "1.0.0-beta.2",
                                              "1.0.0-beta.11",
                                              "1.0.0-rc.1",
                                              "1.0.0",
                                              "1.9.0",
                                              "1.10.0",
                                              "2.0.0-9",
                                              "2.0.0-99999999999999999999",
                                              "2.0.0-A",
                                              "2.0.0-a",
                                              "2.0.0",
                                              "2.1.0",
                                              "2.1.1"};
  for (size_t i = 0; i < ascending.size(); ++i) {
    for (size_t j = 0; j < ascending.size(); ++j) {
      const auto order = ComparePrecedence(*ParseVersion(ascending[i]), *ParseVersion(ascending[j]));
      EXPECT_EQ(order < 0, i < j) << ascending[i] << " " << ascending[j];
      EXPECT_EQ(order == 0, i == j) << ascending[i] << " " << ascending[j];
    }
  }
  EXPECT_TRUE(ComparePrecedence(*ParseVersion("1.0.0+a"), *ParseVersion("1.0.0+b")) == 0)
      << "build data does not count";
}

TEST(SemverTest, Ranges) {
  struct Case {
    std::string range;
    std::vector<std::string> in, out;
  };
  const std::vector<Case> cases = {
      {"1.2.3", {"1.2.3", "1.2.3+b"}, {"1.2.4", "1.2.3-a"}},
      {"=1.2.3", {"1.2.3"}, {"1.2.2"}},
      {"!=1.2.3", {"1.2.4", "1.2.3-a"}, {"1.2.3"}},
      {">1.2.3", {"1.2.4", "2.0.0-a"}, {"1.2.3", "1.2.3-a"}},
      {">=1.2.3", {"1.2.3", "9.0.0"}, {"1.2.3-rc"}},
      {"<1.2.3", {"1.2.3-rc", "0.0.1"}, {"1.2.3"}},
      {"<=1.2.3", {"1.2.3", "1.2.3-rc"}, {"1.2.4-a"}},
      {"^1.2.3", {"1.2.3", "1.9.0"}, {"1.2.2", "1.2.3-a", "2.0.0", "2.0.0-a", "2.0.0-0"}},
      {"^0.2.3", {"0.2.3", "0.2.9"}, {"0.3.0", "0.3.0-0", "0.2.2", "1.0.0"}},
      {"^0.0.3", {"0.0.3"}, {"0.0.4", "0.0.2"}},
      {"~1.2.3", {"1.2.3", "1.2.9"}, {"1.3.0", "1.3.0-a", "1.2.2"}},
      {">=1.0.0 <2.0.0 !=1.5.0", {"1.0.0", "1.9.9"}, {"1.5.0", "2.0.0", "0.9.0"}},
  };
  for (const Case& c : cases) {
    const std::optional<VersionRange> range = VersionRange::Parse(c.range);
    ASSERT_TRUE(range.has_value()) << c.range;
    for (const std::string& text : c.in) EXPECT_TRUE(range->Contains(*ParseVersion(text))) << c.range << " " << text;
    for (const std::string& text : c.out) EXPECT_FALSE(range->Contains(*ParseVersion(text))) << c.range << " " << text;
  }
  for (const char* text :
       {"", " ", "^", "^1", "1.x", "*", ">= 1.0.0", "=>1.0.0", "1.0.0  2.0.0", "^18446744073709551615.0.0"}) {
    EXPECT_FALSE(VersionRange::Parse(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace sluice::flags
