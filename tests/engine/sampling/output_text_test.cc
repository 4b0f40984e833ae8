#include "engine/sampling/output_text.h"

#include <random>

#include "base/strings.h"
#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
  std::string stop;
};

// Feeds the parts until a stop string is met; checks what must hold for every piece.
Result Generate(const std::vector<std::string>& stops, const std::vector<std::string>& parts) {
  OutputText output(stops);
  Result result;
  for (const std::string& part : parts) {
    const OutputText::Piece piece = output.Append(part);
    EXPECT_TRUE(IsValidUtf8(piece.text));
    result.text += piece.text;
    if (piece.stopped) {
      result.stopped = true;
      result.stop = piece.stop;
      EXPECT_EQ(output.Flush(), "") << "nothing more will come";
      return result;
    }
  }
  const std::string tail = output.Flush();
  EXPECT_TRUE(IsValidUtf8(tail));
  result.text += tail;
  EXPECT_EQ(output.Flush(), "");
  return result;
}

std::vector<std::string> SplitAtRandom(const std::string& text, std::mt19937_64& random) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t n = random() % 5;  // empty tokens happen too
    parts.push_back(text.substr(at, n));
    at += n;
  }
  return parts;
}

std::vector<std::string> Bytes(const std::string& text) {
  std::vector<std::string> parts;
  for (const char c : text) parts.emplace_back(1, c);
  return parts;
}

TEST(OutputTextTest, AnySplitOfMultiByteTextJoinsExactly) {
  const uint64_t seed = 77;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const std::vector<std::string> characters = {"a", " ", "\n", "é", "ß", "€", "語", "😀", "𝄞", std::string(1, '\0')};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += characters[random() % characters.size()];
    const std::vector<std::string> stops =
        round % 2 == 0 ? std::vector<std::string>{} : std::vector<std::string>{"aé€!", "😀😀?", "\n\n\n!"};
    const Result result = Generate(stops, SplitAtRandom(text, random));
    ASSERT_FALSE(result.stopped);
    ASSERT_EQ(result.text, text);
  }
}

TEST(OutputTextTest, AStopStringIsFoundAtEverySplit) {
  const std::string text = "Hello wörld<END>tail";
  const std::string stop = "ld<END>";
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      const Result result = Generate({stop, "<END>x"}, {text.substr(0, i), text.substr(i, j - i), text.substr(j)});
      ASSERT_TRUE(result.stopped) << i << " " << j;
      ASSERT_EQ(result.text, "Hello wör");
      ASSERT_EQ(result.stop, stop);
    }
  }
}

TEST(OutputTextTest, OverlappingPrefixesAreFollowed) {
  EXPECT_EQ(Generate({"aab"}, Bytes("aaab")).text, "a");
  EXPECT_TRUE(Generate({"aab"}, Bytes("aaab")).stopped);
  EXPECT_EQ(Generate({"abab!"}, Bytes("ababab!")).text, "ab");
  EXPECT_EQ(Generate({"aab"}, {"aa", "a", "a", "c"}).text, "aaaac");
  EXPECT_EQ(Generate({"xay", "ab"}, Bytes("xab")).text, "x") << "the second stop begins inside a failed first one";
}

TEST(OutputTextTest, BytewiseMatchesANaiveSearch) {
  const uint64_t seed = 5;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 3000; ++round) {
    const auto word = [&](size_t max) {
      std::string s;
      for (size_t n = 1 + random() % max; n > 0; --n) s += static_cast<char>('a' + random() % 2);
      return s;
    };
    const std::vector<std::string> stops = {word(4), word(5), word(3)};
    const std::string text = word(24);
    // Byte by byte, the first prefix of the text that ends in a stop string decides; the longest such stop begins
    // first.
    Result want{.text = text};
    for (size_t n = 1; n <= text.size() && !want.stopped; ++n) {
      for (const std::string& stop : stops) {
        if (text.substr(0, n).ends_with(stop) && stop.size() > want.stop.size()) {
          want = {text.substr(0, n - stop.size()), true, stop};
        }
      }
    }
    const Result got = Generate(stops, Bytes(text));
    ASSERT_EQ(got.stopped, want.stopped) << text;
    ASSERT_EQ(got.text, want.text) << text;
    ASSERT_EQ(got.stop, want.stop) << text;
  }
}

TEST(OutputTextTest, EarliestMatchWinsThenTheLongest) {
  EXPECT_EQ(Generate({"cd", "bc"}, {"abcd"}).stop, "bc");
  EXPECT_EQ(Generate({"ab", "abcd", "abc"}, {"xabcd"}).stop, "abcd");
  EXPECT_EQ(Generate({"abcd", "ab"}, {"xab", "cd"}).stop, "ab") << "a complete match does not wait";
}

TEST(OutputTextTest, TextIsHeldNoLongerThanNeeded) {
  OutputText output({"<END>"});
  EXPECT_EQ(output.Append("abc").text, "abc") << "nothing could become a stop string";
  EXPECT_EQ(output.Append("x<E").text, "x");
  EXPECT_EQ(output.Append("N").text, "");
  EXPECT_EQ(output.Append("T").text, "<ENT");
  EXPECT_EQ(output.Append("\xE2\x82").text, "");
  EXPECT_EQ(output.Append("\xAC").text, "€");
}

TEST(OutputTextTest, MalformedBytesBecomeReplacementCharacters) {
  EXPECT_EQ(Generate({}, {"a\xFF", "b"}).text, "a\uFFFDb");
  EXPECT_EQ(Generate({}, {"a\xC3", "b"}).text, "a\uFFFDb") << "the second byte never came";
  EXPECT_EQ(Generate({}, {"a", "\xC3"}).text, "a\uFFFD") << "the text ended inside a character";
  EXPECT_EQ(Generate({"stop"}, {"\xC3", "stop"}).text, "\uFFFD");
  EXPECT_EQ(Generate({"stop"}, {"\xC3", "sto"}).text, "\uFFFDsto");
  std::mt19937_64 random(2);
  for (int round = 0; round < 2000; ++round) {
    std::string noise;
    for (int i = 0; i < 20; ++i) noise += static_cast<char>(random() % 3 == 0 ? random() : 0x80 + random() % 0x80);
    ASSERT_EQ(Generate({"\u0080x"}, SplitAtRandom(noise, random)).text, ReplaceInvalidUtf8(noise)) << round;
  }
}

TEST(OutputTextDeathTest, MisuseAborts) {
  EXPECT_DEATH(OutputText({"a", ""}), "empty stop string");
  OutputText output({"a"});
  EXPECT_TRUE(output.Append("a").stopped);
  EXPECT_DEATH(output.Append("b"), "nothing follows");
}

}  // namespace
}  // namespace sluice::engine
