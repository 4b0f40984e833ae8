#include "base/strings.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace sluice {
namespace {

std::string Encode(uint32_t c) {
  std::string out;
  if (c < 0x80) {
    out = {static_cast<char>(c)};
  } else if (c < 0x800) {
    out = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    out = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
           static_cast<char>(0x80 | (c & 63))};
  } else {
    out = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
           static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
  }
  return out;
}

TEST(StringsTest, ExactlyTheScalarValuesAreValid) {
  for (uint32_t c = 0; c < 0x120000; ++c) {
    const bool scalar = c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
    ASSERT_EQ(IsValidUtf8(Encode(c)), scalar) << std::hex << c;
  }
}

TEST(StringsTest, OverlongAndStrayBytesAreInvalid) {
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xF0\x80\x80\x80",
                          "\xF0\x8F\xBF\xBF", "\xF8\x88\x80\x80\x80", "\xFF", "a\xC3", "\xE2\x82"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
    EXPECT_TRUE(IsValidUtf8(ReplaceInvalidUtf8(bad)));
  }
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFFz"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(ReplaceInvalidUtf8("h\xC3\xA9"), "h\xC3\xA9");
  EXPECT_TRUE(IsValidUtf8(""));
}

TEST(StringsTest, CompletePrefixStopsOnlyBeforeAnUnfinishedCharacter) {
  for (const uint32_t c : {0xE9U, 0x20ACU, 0x1F600U}) {
    const std::string full = Encode(c);
    for (size_t n = 1; n < full.size(); ++n) EXPECT_EQ(CompleteUtf8Prefix("ab" + full.substr(0, n)), 2u);
    EXPECT_EQ(CompleteUtf8Prefix("ab" + full), 2 + full.size());
  }
  EXPECT_EQ(CompleteUtf8Prefix(""), 0u);
  EXPECT_EQ(CompleteUtf8Prefix("\x80\x80\x80\x80"), 4u) << "waiting makes nothing better";
  EXPECT_EQ(CompleteUtf8Prefix("a\xE0\x80"), 3u) << "already malformed";
}

TEST(StringsTest, ViewsConvertBothWays) {
  const std::string text("a\0b", 3);
  EXPECT_EQ(ToStd(ToAbsl(text)), text);
}

}  // namespace
}  // namespace sluice
