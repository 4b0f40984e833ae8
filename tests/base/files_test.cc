#include "base/files.h"

#include <filesystem>

#include "base/digest.h"
#include "base/machine_limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using testing::HasSubstr;

std::string Fresh(const char* name) { return testing::TempDir() + "/files_test." + name; }

TEST(FilesTest, WhatIsWrittenIsRead) {
  const std::string path = Fresh("whole"), text = std::string("a\0b\n", 4) + std::string(200'000, 'x');
  ASSERT_TRUE(WriteTextFile(path, "something longer before").ok());
  ASSERT_TRUE(WriteTextFile(path, text).ok());
  EXPECT_EQ(*ReadTextFile(path), text);
}

TEST(FilesTest, FaultsNameTheFileAndTheReason) {
  const auto missing = ReadTextFile(Fresh("missing"));
  EXPECT_TRUE(absl::IsNotFound(missing.status()));
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("missing' cannot be read: no such file"));
  EXPECT_THAT(std::string(ReadTextFile(testing::TempDir()).status().message()), HasSubstr("not a regular file"));
  EXPECT_THAT(std::string(WriteTextFile(testing::TempDir() + "/none/x", "").message()), HasSubstr("No such file"));
}

TEST(FilesTest, AFileOverTheLimitIsRefused) {
  const std::string path = Fresh("limit");
  ASSERT_TRUE(WriteTextFile(path, "12345").ok());
  EXPECT_EQ(*ReadTextFile(path, 5), "12345");
  EXPECT_THAT(std::string(ReadTextFile(path, 4).status().message()), HasSubstr("larger than 4 bytes"));
}

// FIPS 180-4's example.
TEST(DigestTest, Sha256OfTextAndFile) {
  constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(Sha256Hex("abc"), kAbc);
  const std::string path = Fresh("digest");
  ASSERT_TRUE(WriteTextFile(path, "abc").ok());
  EXPECT_EQ(*Sha256OfFile(path), kAbc);
  EXPECT_TRUE(absl::IsNotFound(Sha256OfFile(Fresh("missing")).status()));
}

TEST(MachineLimitsTest, SaySomethingUsable) {
  EXPECT_GE(UsableCpus(), 1);
  EXPECT_GT(MemoryLimitBytes(), uint64_t{64} << 20);
}

}  // namespace
}  // namespace sluice
