#include "base/log.h"

#include <string>
#include <thread>
#include <vector>

#include "base/strings.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { InitLogging(LogFormat::kText, LogLevel::kInfo); }

  std::string Capture(const std::function<void()>& write) {
    testing::internal::CaptureStderr();
    write();
    return testing::internal::GetCapturedStderr();
  }
  nlohmann::json CaptureJson(const std::function<void()>& write) {
    InitLogging(LogFormat::kJson, LogLevel::kDebug);
    const std::string line = Capture(write);
    EXPECT_LE(line.size(), 8u * 1024);
    EXPECT_EQ(line.find('\n'), line.size() - 1) << "one line each";
    return nlohmann::json::parse(line);
  }
};

TEST_F(LogTest, JsonLineHasTimeLevelMessageThenFields) {
  InitLogging(LogFormat::kJson, LogLevel::kInfo);
  const std::string line = Capture([] { LogInfo("ready", {{"model", "a b"}, {"slots", "100", true}}); });
  EXPECT_THAT(line, MatchesRegex("\\{\"ts\":\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z\",\"level\":\"info\","
                                 "\"msg\":\"ready\",\"model\":\"a b\",\"slots\":100\\}\n"));
}

TEST_F(LogTest, JsonStaysValidWithHostileText) {
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  const auto json = CaptureJson([&] { LogError(all, {{"k\"\n", all}}); });
  EXPECT_EQ(json["level"], "error");
  EXPECT_EQ(json["msg"], ReplaceInvalidUtf8(all));
  EXPECT_EQ(json["k\"\n"], ReplaceInvalidUtf8(all));
}

TEST_F(LogTest, RawValuesThatAreNotJsonBecomeStrings) {
  for (const std::string good : {"0", "-1", "3.25", "1e9", "2.5E-3", "true", "false", "null"}) {
    const auto json = CaptureJson([&] { LogInfo("m", {{"v", good, true}}); });
    EXPECT_FALSE(json["v"].is_string()) << good;
  }
  for (const std::string bad : {"", "nan", "-inf", "01", "+1", "1.", ".5", "1e", "0x1", "1,\"x\":2", "True", "-"}) {
    const auto json = CaptureJson([&] { LogInfo("m", {{"v", bad, true}}); });
    EXPECT_EQ(json["v"], bad);
    EXPECT_EQ(json.size(), 4u) << bad;
  }
}

TEST_F(LogTest, LongLinesAreCutBetweenCharactersAndStayValid) {
  for (size_t pad = 0; pad < 8; ++pad) {
    std::string text(pad, 'x');
    while (text.size() < 20'000) text += "\xE2\x82\xAC\n";
    const auto message = CaptureJson([&] { LogInfo(text, {{"never", "seen"}}); });
    EXPECT_EQ(message["cut"], true);
    EXPECT_FALSE(message.contains("never"));
    EXPECT_EQ(message["msg"], text.substr(0, message["msg"].get<std::string>().size()));
    const auto field = CaptureJson([&] { LogInfo("m", {{"v", text}, {"never", "1", true}}); });
    EXPECT_EQ(field["cut"], true);
    EXPECT_FALSE(field.contains("never"));
    EXPECT_GT(field["v"].get<std::string>().size(), 5000u);
  }
}

TEST_F(LogTest, EveryLengthAroundTheLimitIsValid) {
  for (size_t n = 7900; n < 8250; ++n) {
    const auto json = CaptureJson([&] { LogInfo(std::string(n, 'x'), {{"key", "12345", true}}); });
    const bool whole = json["msg"].get<std::string>().size() == n && json.contains("key");
    EXPECT_EQ(json.contains("cut"), !whole) << n;
  }
}

TEST_F(LogTest, TextLineQuotesWhatHoldsSpacesAndNeverBreaksTheLine) {
  InitLogging(LogFormat::kText, LogLevel::kInfo);
  const std::string line = Capture([] {
    LogWarning("no \"x\"\nforged line", {{"path", "/a b"}, {"n", "3", true}, {"empty", ""}, {"word", "w"}});
  });
  EXPECT_THAT(line, MatchesRegex("[-0-9]{10}T[0-9:.]{12}Z warning .*\n"));
  EXPECT_THAT(line, EndsWith("no \"x\"\\nforged line path=\"/a b\" n=3 empty=\"\" word=w\n"));
}

TEST_F(LogTest, LowerLevelsAreDropped) {
  InitLogging(LogFormat::kText, LogLevel::kWarning);
  const std::string lines = Capture([] {
    Log(LogLevel::kDebug, "one");
    LogInfo("two");
    LogWarning("three");
    LogError("four");
  });
  EXPECT_THAT(lines, Not(HasSubstr("one")));
  EXPECT_THAT(lines, Not(HasSubstr("two")));
  EXPECT_THAT(lines, HasSubstr("warning three\n"));
  EXPECT_THAT(lines, HasSubstr("error four\n"));
}

TEST_F(LogTest, ThreadsDoNotMixTheirLines) {
  InitLogging(LogFormat::kJson, LogLevel::kInfo);
  const std::string lines = Capture([] {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 200; ++i) LogInfo(std::string(300, 'm'), {{"i", std::to_string(i), true}});
      });
    }
  });
  size_t count = 0;
  for (size_t at = 0; at < lines.size(); ++count) {
    const size_t end = lines.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    ASSERT_TRUE(nlohmann::json::accept(lines.substr(at, end - at)));
    at = end + 1;
  }
  EXPECT_EQ(count, 800u);
}

}  // namespace
}  // namespace sluice
