#include "loadtest/sse.h"

#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::loadtest {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Drain(SseParser& parser) {
  std::vector<std::string> events;
  std::string data;
  while (parser.Next(&data)) events.push_back(data);
  return events;
}

std::vector<std::string> Parse(const std::vector<std::string>& pieces) {
  SseParser parser;
  std::vector<std::string> events;
  for (const std::string& piece : pieces) {
    parser.Append(piece);
    for (std::string& event : Drain(parser)) events.push_back(std::move(event));
  }
  return events;
}

TEST(Sse, EventsOfEveryLineEnding) {
  EXPECT_THAT(Parse({"data: a\n\ndata: b\n\n"}), ElementsAre("a", "b"));
  EXPECT_THAT(Parse({"data: a\r\n\r\ndata: b\r\n\r\n"}), ElementsAre("a", "b"));
  EXPECT_THAT(Parse({"data: a\r\rdata: b\r\r"}), ElementsAre("a", "b"));
}

TEST(Sse, OneSpaceAfterTheColonIsNotData) {
  EXPECT_THAT(Parse({"data:a\n\ndata:  b\n\ndata: c \n\n"}), ElementsAre("a", " b", "c "));
}

TEST(Sse, LinesOfOneEventAreJoined) {
  EXPECT_THAT(Parse({"data: a\ndata: b\ndata\ndata: c\n\n"}), ElementsAre("a\nb\n\nc"));
}

TEST(Sse, CommentsAndOtherFieldsAreNoData) {
  EXPECT_THAT(
      Parse({": ping\n\nevent: message\nid: 7\nretry: 10\ndatabase: x\ndata: a\n: more\n\n\n\nevent: none\n\n"}),
      ElementsAre("a"));
}

TEST(Sse, AnEventWithoutItsBlankLineIsNotComplete) {
  SseParser parser;
  parser.Append("data: a\n");
  EXPECT_THAT(Drain(parser), IsEmpty());
  parser.Append("\n");
  EXPECT_THAT(Drain(parser), ElementsAre("a"));
  EXPECT_THAT(Drain(parser), IsEmpty());
}

const char kStream[] =
    ": hello\r\n\r\ndata: {\"a\": 1}\r\n\r\ndata: one\ndata: two\n\nevent: x\rdata: three\r\rdata:\n\ndata: "
    "\xC3\xA9\r\n\n"
    "data: [DONE]\n\n";

TEST(Sse, EverySplitPointGivesTheSameEvents) {
  const std::string stream = kStream;
  const auto whole = Parse({stream});
  ASSERT_THAT(whole, ElementsAre("{\"a\": 1}", "one\ntwo", "three", "", "\xC3\xA9", "[DONE]"));
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      ASSERT_EQ(Parse({stream.substr(0, first), stream.substr(first, second - first), stream.substr(second)}), whole)
          << "split at " << first << " and " << second;
    }
  }
}

TEST(Sse, RandomBytesInRandomPiecesGiveTheSameEvents) {
  constexpr uint32_t kSeed = 20250611;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const std::vector<std::string> words = {"data", ":", " ", "\r", "\n", "\r\n", "\n\n", "data: ", "x", "id: 1", "é"};
  size_t events = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string stream;
    for (uint32_t i = random() % 60; i > 0; --i) stream += words[random() % words.size()];
    std::vector<std::string> pieces;
    for (size_t at = 0; at < stream.size();) {
      pieces.push_back(stream.substr(at, random() % 5));
      at += pieces.back().size();
    }
    const auto whole = Parse({stream});
    events += whole.size();
    ASSERT_EQ(Parse(pieces), whole) << "round " << round << ": " << testing::PrintToString(stream);
  }
  EXPECT_GT(events, 1000u);  // the rounds did not compare nothing with nothing
}

}  // namespace
}  // namespace sluice::loadtest
