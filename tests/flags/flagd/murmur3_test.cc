#include "flags/flagd/murmur3.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace sluice::flags::flagd {
namespace {

// Well-known vectors of MurmurHash3_x86_32.
TEST(Murmur3Test, KnownVectors) {
  EXPECT_EQ(Murmur3X86_32("", 0), 0u);
  EXPECT_EQ(Murmur3X86_32("", 1), 0x514e28b7u);
  EXPECT_EQ(Murmur3X86_32("", 0xffffffff), 0x81f16f39u);
  EXPECT_EQ(Murmur3X86_32(std::string_view("\xff\xff\xff\xff", 4)), 0x76293b50u);
  EXPECT_EQ(Murmur3X86_32(std::string_view("\x21\x43\x65\x87", 4)), 0xf55b516bu);
  EXPECT_EQ(Murmur3X86_32(std::string_view("\x21\x43\x65", 3)), 0x7e4a8634u);
  EXPECT_EQ(Murmur3X86_32(std::string_view("\x21\x43", 2)), 0xa0f7b07au);
  EXPECT_EQ(Murmur3X86_32(std::string_view("\x21", 1)), 0x72661cf4u);
  EXPECT_EQ(Murmur3X86_32(std::string_view("\0\0\0\0", 4)), 0x2362f9deu);
}

// Keys whose hash falls on the edges of the 32-bit range.
TEST(Murmur3Test, EdgesOfTheRange) {
  EXPECT_EQ(Murmur3X86_32("ejOoVL"), 0x00000000u);
  EXPECT_EQ(Murmur3X86_32("bY9fO-"), 0x00000001u);
  EXPECT_EQ(Murmur3X86_32("SI7p-"), 0x7fffffffu);
  EXPECT_EQ(Murmur3X86_32("6LvT0"), 0x80000000u);
  EXPECT_EQ(Murmur3X86_32("ceQdGm"), 0xffffffffu);
}

}  // namespace
}  // namespace sluice::flags::flagd
