#include "base/reason.h"

#include <algorithm>
#include <set>
#include <string>

#include "base/files.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(ReasonTest, WordsAreUniqueAndFitErrorInfo) {
  std::set<std::string_view> words;
  for (const ReasonInfo& info : AllReasons()) {
    EXPECT_TRUE(words.insert(info.word).second) << info.word;
    EXPECT_TRUE(!info.word.empty() && info.word.size() <= 63) << info.word;
    const bool plain = std::all_of(info.word.begin(), info.word.end(),
                                   [](char c) { return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; });
    EXPECT_TRUE(plain) << info.word;
    EXPECT_EQ(FindReason(info.word), info.reason);
    EXPECT_EQ(Describe(info.reason).word, info.word);
  }
  EXPECT_EQ(FindReason("queue_full"), std::nullopt);
  EXPECT_EQ(FindReason(""), std::nullopt);
}

TEST(ReasonTest, EveryCodeHasItsOwnWord) {
  for (int i = 0; i <= 16; ++i) {
    const auto code = static_cast<absl::StatusCode>(i);
    EXPECT_EQ(Describe(ReasonOfCode(code)).code, code);
    EXPECT_EQ(ReasonWord(ReasonOfCode(code)), absl::StatusCodeToString(code));
  }
  EXPECT_EQ(ReasonOfCode(static_cast<absl::StatusCode>(99)), Reason::kUnknown);
}

TEST(ReasonTest, HttpStatusSaysWhoseFaultItIs) {
  for (const ReasonInfo& info : AllReasons()) {
    const bool by_server = info.http_status >= 500;
    switch (info.code) {
      case absl::StatusCode::kOk:
        EXPECT_EQ(info.http_status, 200);
        break;
      case absl::StatusCode::kResourceExhausted:  // contended, or nobody is served
        EXPECT_TRUE(info.http_status == 429 || info.http_status == 503) << info.word;
        break;
      case absl::StatusCode::kUnavailable:
        EXPECT_EQ(info.http_status, 503) << info.word;
        break;
      case absl::StatusCode::kDeadlineExceeded:
        EXPECT_EQ(info.http_status, 504) << info.word;
        break;
      case absl::StatusCode::kCancelled:
        EXPECT_EQ(info.http_status, 499) << info.word;
        break;
      case absl::StatusCode::kUnknown:
      case absl::StatusCode::kInternal:
      case absl::StatusCode::kDataLoss:
      case absl::StatusCode::kUnimplemented:
        EXPECT_TRUE(by_server) << info.word;
        break;
      default:
        EXPECT_FALSE(by_server) << info.word;
    }
  }
}

// docs/operations.md lists exactly these. When it fails, put the printed rows in the place of the old ones.
TEST(ReasonTest, TheDocumentedTableIsThisOne) {
  const auto page = ReadTextFile("docs/operations.md");
  ASSERT_TRUE(page.ok()) << page.status();
  std::string rows = "| reason | gRPC | HTTP | retry safe | meaning |\n|---|---|---|---|---|\n";
  for (const ReasonInfo& info : AllReasons()) {
    if (info.reason == Reason::kOk) continue;
    rows += "| `" + std::string(info.word) + "` | " + absl::StatusCodeToString(info.code) + " | " +
            std::to_string(info.http_status) + " | " + (info.nothing_done ? "yes" : "no") + " | " +
            std::string(info.meaning) + " |\n";
  }
  EXPECT_TRUE(page->find(rows + "\n") != std::string::npos) << rows;
}

}  // namespace
}  // namespace sluice
