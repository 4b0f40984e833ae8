#include "config/values.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::config {
namespace {

using testing::Optional;

TEST(ParseInteger, TakesDigitsWithinTheRangeOnly) {
  EXPECT_THAT(ParseInteger("1", 1, 10).value, Optional(1));
  EXPECT_THAT(ParseInteger("10", 1, 10).value, Optional(10));
  EXPECT_THAT(ParseInteger("-3", -5, 5).value, Optional(-3));
  EXPECT_EQ(ParseInteger("0", 1, 10).what, "\"0\" is out of range");
  EXPECT_EQ(ParseInteger("11", 1, 10).what, "\"11\" is out of range");
  EXPECT_EQ(ParseInteger("99999999999999999999999", 1, 10).what, "\"99999999999999999999999\" is out of range");
  for (const char* text : {"", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x10", "1_000", "--1", "many"}) {
    EXPECT_FALSE(ParseInteger(text, -100, 100).value) << text;
    EXPECT_THAT(ParseInteger(text, -100, 100).what, testing::HasSubstr("is not a whole number")) << text;
  }
}

TEST(ParseNumber, RefusesWhatIsNotFinite) {
  EXPECT_THAT(ParseNumber("2.5", 1, 3).value, Optional(2.5));
  EXPECT_THAT(ParseNumber("1", 1, 3).value, Optional(1.0));
  EXPECT_EQ(ParseNumber("0.99", 1, 3).what, "\"0.99\" is out of range");
  EXPECT_EQ(ParseNumber("1e999", 1, 3).what, "\"1e999\" is out of range");
  for (const char* text : {"nan", ".nan", ".NaN", "inf", "-.inf", "Infinity"}) {
    EXPECT_THAT(ParseNumber(text, 1, 3).what, testing::HasSubstr("is not a finite number")) << text;
  }
  for (const char* text : {"", "2x", " 2", "two"}) {
    EXPECT_THAT(ParseNumber(text, 1, 3).what, testing::HasSubstr("is not a number")) << text;
  }
}

TEST(ParseBool, DigitsOnlyWhereAllowed) {
  for (const char* text : {"true", "True", "YES", "on"}) EXPECT_THAT(ParseBool(text, false).value, Optional(true));
  for (const char* text : {"false", "No", "OFF"}) EXPECT_THAT(ParseBool(text, false).value, Optional(false));
  EXPECT_THAT(ParseBool("1", true).value, Optional(true));
  EXPECT_THAT(ParseBool("0", true).value, Optional(false));
  EXPECT_EQ(ParseBool("1", false).what, "\"1\" is not a boolean");
  EXPECT_EQ(ParseBool("", true).what, "\"\" is not a boolean");
  EXPECT_EQ(ParseBool("y", true).what, "\"y\" is not a boolean");
}

TEST(ParsePercentAsBps, IsExact) {
  EXPECT_THAT(ParsePercentAsBps("33.33").value, Optional(3333u));
  EXPECT_THAT(ParsePercentAsBps("0.01").value, Optional(1u));
  EXPECT_THAT(ParsePercentAsBps("0.1").value, Optional(10u));
  EXPECT_THAT(ParsePercentAsBps("0").value, Optional(0u));
  EXPECT_THAT(ParsePercentAsBps("100").value, Optional(10000u));
  EXPECT_THAT(ParsePercentAsBps("100.00").value, Optional(10000u));
  EXPECT_EQ(ParsePercentAsBps("0.005").what, "\"0.005\" has more than two decimals");
  EXPECT_EQ(ParsePercentAsBps("100.01").what, "\"100.01\" is out of range");
  EXPECT_EQ(ParsePercentAsBps("-1").what, "\"-1\" is out of range");
  EXPECT_EQ(ParsePercentAsBps("4294967297").what, "\"4294967297\" is out of range");
  for (const char* text : {"", ".", "5.", ".5", "1e1", "10%", "ten", "1.2.3", "nan"}) {
    EXPECT_THAT(ParsePercentAsBps(text).what, testing::HasSubstr("is not a percentage")) << text;
  }
  // Every step of the whole range, where floating point would lose some (0.29 * 100 = 28.999...).
  for (uint32_t bps = 0; bps <= 10000; ++bps) {
    const std::string text = std::to_string(bps / 100) + "." + std::to_string(bps / 10 % 10) + std::to_string(bps % 10);
    ASSERT_THAT(ParsePercentAsBps(text).value, Optional(bps));
  }
}

TEST(ParseAddress, HostAndPort) {
  for (const char* text : {"127.0.0.1:8001", "[::1]:0", "0.0.0.0:65535", "my-host.example:1"}) {
    EXPECT_TRUE(ParseAddress(text).value) << text;
  }
  for (const char* text : {"", "localhost", ":8001", "::1:8001", "[::1]", "[x]:1", "host:", "host:65536", "host:-0",
                           "host:80a", "ho st:80", "http://host:80"}) {
    EXPECT_FALSE(ParseAddress(text).value) << text;
  }
}

TEST(ParseGrpcAddress, AlsoAUnixSocket) {
  const std::string longest = "unix:/" + std::string(106, 'a');
  for (const std::string& text : {std::string("127.0.0.1:8001"), std::string("unix:/run/sluice/grpc.sock"), longest}) {
    EXPECT_EQ(ParseGrpcAddress(text).value, text);
  }
  for (const std::string& text : {std::string("unix:"), std::string("unix:relative"), std::string("unix:/folder/"),
                                  std::string("unix:/a\nb"), longest + "a", std::string("unixx:/run/a")}) {
    EXPECT_FALSE(ParseGrpcAddress(text).value) << text;
  }
  EXPECT_FALSE(ParseAddress("unix:/run/sluice/grpc.sock").value) << "nobody but gRPC listens on one";
}

TEST(IsLoopback, LooksAtTheAddressNotAtItsSpelling) {
  for (const char* text : {"127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "[0:0::1]:1", "unix:/run/a"}) {
    EXPECT_TRUE(IsLoopback(text)) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "127.0.0.1.example.org:1", "10.0.0.1:1", "localhost.example:1"}) {
    EXPECT_FALSE(IsLoopback(text)) << text;
  }
}

TEST(NearestName, FindsSlipsAndOtherSpellings) {
  const std::vector<std::string> keys = {"grpc_address", "metrics_address", "insecure", "maxModels", "slots"};
  EXPECT_THAT(NearestName("grpc_adress", keys), Optional(std::string("grpc_address")));
  EXPECT_THAT(NearestName("max_models", keys), Optional(std::string("maxModels")));
  EXPECT_THAT(NearestName("slosts", keys), Optional(std::string("slots")));
  EXPECT_THAT(NearestName("solts", keys), Optional(std::string("slots")));
  EXPECT_EQ(NearestName("temperature", keys), std::nullopt);
  EXPECT_EQ(NearestName(std::string(5000, 's'), keys), std::nullopt);
}

TEST(ScreamingCase, NamesVariables) {
  EXPECT_EQ(ScreamingCase("server.tls.key_file"), "SERVER_TLS_KEY_FILE");
  EXPECT_EQ(ScreamingCase("streaming.maxConcurrentStreams"), "STREAMING_MAX_CONCURRENT_STREAMS");
}

TEST(Quote, IsPrintableAndShort) {
  EXPECT_EQ(Quote("a\x01"
                  "b\xff"),
            "\"a\\x01b\xEF\xBF\xBD\"");
  EXPECT_LT(Quote(std::string(1000, 'x')).size(), 80u);
}

TEST(ParseTimestamp, Rfc3339Only) {
  const auto seconds = [](std::string_view text) {
    const Parsed<WallTime> parsed = ParseTimestamp(text);
    return parsed.value ? std::chrono::duration<double>(parsed.value->time_since_epoch()).count() : -1;
  };
  EXPECT_EQ(seconds("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(seconds("1970-01-02T00:00:01.25Z"), 86401.25);
  EXPECT_EQ(seconds("2026-11-22T22:00:00Z"), 1795384800);
  EXPECT_EQ(seconds("2026-11-23T00:00:00+02:00"), 1795384800);
  EXPECT_EQ(seconds("2026-11-22T16:30:00-05:30"), 1795384800);
  for (const char* text :
       {"", "2026", "2026-11-22", "2026-11-22T22:00:00", "2026-11-22 22:00:00Z", "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T22:60:00Z", "2026-11-22T22:00:60Z",
        "2026-11-22T22:00:00.Z", "2026-11-22T22:00:00.1234567890Z", "2026-11-22T22:00:00+2:00",
        "2026-11-22T22:00:00+24:00", "2026-11-22T22:00:00z", "2026-11-22T22:00:00Z ", "1969-12-31T23:59:59Z",
        "2262-01-01T00:00:00Z", "2026-11-22T22:00:00+0x:00"}) {
    EXPECT_EQ(ParseTimestamp(text).value, std::nullopt) << text;
    EXPECT_NE(ParseTimestamp(text).what, "") << text;
  }
}

}  // namespace
}  // namespace sluice::config
