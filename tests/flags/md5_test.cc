#include "flags/md5.h"

#include <openssl/evp.h>

#include <cstdio>
#include <random>
#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"

namespace sluice::flags {
namespace {

std::string Hex(const Md5Digest& digest) {
  std::string out;
  for (const uint8_t byte : digest) out += fmt::format("{:02x}", byte);
  return out;
}

TEST(Md5Test, VectorsOfRfc1321) {
  EXPECT_EQ(Hex(Md5("")), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(Hex(Md5("a")), "0cc175b9c0f1b6a831c399e269772661");
  EXPECT_EQ(Hex(Md5("abc")), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(Hex(Md5("message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
  EXPECT_EQ(Hex(Md5("abcdefghijklmnopqrstuvwxyz")), "c3fcd3d76192e4007dfb496cca67e13b");
  EXPECT_EQ(Hex(Md5("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")),
            "d174ab98d277d9f5a5611c2c9f419d9f");
  EXPECT_EQ(Hex(Md5("12345678901234567890123456789012345678901234567890123456789012345678901234567890")),
            "57edf4a22be3c955ac49da2e2107b67a");
}

TEST(Md5Test, PartsAreConcatenated) {
  EXPECT_EQ(Md5("abc"), Md5("a", "b", "c"));
  EXPECT_EQ(Md5("abc"), Md5("", "abc", ""));
  EXPECT_EQ(Md5("abc"), Md5("ab", "c"));
  EXPECT_NE(Md5("abc"), Md5("a", "c", "b"));
}

// Every length around the block borders, split at random places.
TEST(Md5Test, AgreesWithOpenSsl) {
  const EVP_MD* reference = EVP_md5();
  constexpr uint32_t kSeed = 20251122;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  for (size_t length = 0; length < 1000; ++length) {
    std::string text(length, '\0');
    for (char& c : text) c = static_cast<char>(random());
    Md5Digest expected;
    ASSERT_EQ(EVP_Digest(text.data(), text.size(), expected.data(), nullptr, reference, nullptr), 1);
    const size_t first = random() % (length + 1), second = first + random() % (length - first + 1);
    const std::string_view view = text;
    ASSERT_EQ(Md5(view.substr(0, first), view.substr(first, second - first), view.substr(second)), expected)
        << "length " << length << ", split at " << first << " and " << second;
  }
}

}  // namespace
}  // namespace sluice::flags
