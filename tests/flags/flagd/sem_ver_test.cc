#include "flags/flagd/sem_ver.h"

#include <gtest/gtest.h>

#include <optional>
#include <string_view>
#include <vector>

namespace sluice::flags::flagd {
namespace {

TEST(SemVerTest, ReadsVersions) {
  for (const std::string_view good : {"0.0.0", "1", "1.2", "v1.2.3", "V1", "1.2.3-rc.1", "1.2.3+build.007",
                                      "1.2.3-0a.-.x+001", "99999999999999999999.0.0"}) {
    EXPECT_TRUE(ParseSemVer(good).has_value()) << good;
  }
  for (const std::string_view bad : {"",           "v",
                                     "vv1",        "a",
                                     "1.",         ".1",
                                     "1.2.",       "1.2.3.4",
                                     "01.0.0",     "1.02.0",
                                     "1.2.03",     "1-rc",
                                     "1.2-rc",     "1.2.3-",
                                     "1.2.3+",     "1.2.3-01",
                                     "1.2.3-a..b", "1.2.3-a+",
                                     " 1.0.0",     "1.0.0 ",
                                     "-1.0.0",     "1.2.3-\xc3\xa4"}) {
    EXPECT_FALSE(ParseSemVer(bad).has_value()) << bad;
  }
}

// The order of semver.org, paragraph 11: each entry comes before all that follow it.
TEST(SemVerTest, Orders) {
  const std::vector<std::string_view> ordered = {"0.9.9",      "1.0.0-alpha",  "1.0.0-alpha.1", "1.0.0-alpha.beta",
                                                 "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
                                                 "1.0.0",      "1.0.1",        "1.2.0",         "1.10.0",
                                                 "2.0.0",      "10.0.0"};
  for (size_t a = 0; a < ordered.size(); ++a) {
    for (size_t b = 0; b < ordered.size(); ++b) {
      EXPECT_EQ(Compare(*ParseSemVer(ordered[a]), *ParseSemVer(ordered[b])), a < b   ? -1
                                                                             : a > b ? 1
                                                                                     : 0)
          << ordered[a] << " " << ordered[b];
    }
  }
  EXPECT_EQ(Compare(*ParseSemVer("1.0.0+a"), *ParseSemVer("1.0.0+b")), 0) << "builds do not count";
}

TEST(SemVerTest, Ranges) {
  EXPECT_EQ(SemVerMatches("1.2.3", "^", "1.9.0"), true);
  EXPECT_EQ(SemVerMatches("2.2.3", "^", "1.9.0"), false);
  EXPECT_EQ(SemVerMatches("1.2.3", "~", "1.2.0"), true);
  EXPECT_EQ(SemVerMatches("1.3.3", "~", "1.2.0"), false);
  EXPECT_EQ(SemVerMatches("1.0.0", "!=", "1.0.0"), false);
  EXPECT_EQ(SemVerMatches("1.0.0", "<=", "1.0.0"), true);
  EXPECT_EQ(SemVerMatches("1.0.0", ">=", "1.0.1"), false);
  EXPECT_EQ(SemVerMatches("1.0.0", "===", "1.0.0"), std::nullopt);
  EXPECT_EQ(SemVerMatches("one", "=", "1.0.0"), std::nullopt);
}

}  // namespace
}  // namespace sluice::flags::flagd
