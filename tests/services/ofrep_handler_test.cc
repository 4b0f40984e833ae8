#include "services/ofrep/ofrep_handler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "nlohmann/json.hpp"
#include "tests/services/flag_documents.h"

namespace sluice::services {
namespace {

using nlohmann::json;
using test::FlagSpec;
using test::MakeFlags;
using testing::HasSubstr;

using Set = std::shared_ptr<const flags::FlagSet>;

constexpr std::string_view kAll = "/ofrep/v1/evaluate/flags";

HttpResponse Post(const Set& set, std::string_view path, std::string_view body = R"({"context": {}})",
                  const std::string& if_none_match = "") {
  HttpRequest request{.method = "POST", .path = path, .body = body};
  if (!if_none_match.empty()) request.headers["if-none-match"] = if_none_match;
  MetricsRegistry metrics;
  return HandleOfrep(request, flags::FlagGate(set, metrics), WallTime{});
}

HttpResponse One(const Set& set, std::string_view key, std::string_view body = R"({"context": {}})") {
  return Post(set, std::string(kAll) + "/" + std::string(key), body);
}

TEST(OfrepHandlerTest, OneFlag) {
  const auto set = MakeFlags();
  const HttpResponse response = One(set, "string", R"({"context": {"targetingKey": "u", "leaving": true}})");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-type"), "application/json");
  EXPECT_EQ(json::parse(response.body), json::parse(R"({"key": "string", "value": "", "variant": "bye",
      "reason": "TARGETING_MATCH", "metadata": {"flagSetId": "tests", "owner": "x"}})"));
  EXPECT_EQ(json::parse(One(set, "object").body)["value"]["deep"]["x"], true);
  EXPECT_EQ(json::parse(One(set, "s%74ring").body)["value"], "hello") << "the key is decoded";
  EXPECT_EQ(json::parse(One(set, "int", "").body)["value"], 10) << "an empty body is an empty context";
}

TEST(OfrepHandlerTest, ADefaultInTheCodeHasNoValue) {
  const auto set = MakeFlags();
  for (const auto* key : {"no-default", "disabled"}) {
    const HttpResponse response = One(set, key);
    EXPECT_EQ(response.status, 200) << key;
    EXPECT_FALSE(json::parse(response.body).contains("value")) << key;
    EXPECT_FALSE(json::parse(response.body).contains("variant")) << key;
  }
}

TEST(OfrepHandlerTest, Errors) {
  const auto set = MakeFlags();
  const auto expect = [](const HttpResponse& response, int status, std::string_view code) {
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_EQ(json::parse(response.body)["errorCode"], code) << response.body;
    EXPECT_NE(json::parse(response.body)["errorDetails"], "") << response.body;
  };
  expect(One(set, "nowhere"), 404, "FLAG_NOT_FOUND");
  expect(One(set, "broken"), 400, "PARSE_ERROR");
  expect(One(set, "wrong"), 400, "GENERAL");
  expect(One(set, "bool", "{"), 400, "PARSE_ERROR");
  expect(One(set, "bool", "[]"), 400, "PARSE_ERROR");
  expect(One(set, "bool", R"({"context": 3})"), 400, "INVALID_CONTEXT");
  expect(One(set, "bool", "{\"context\": {\"a\": \"\xff\"}}"), 400, "PARSE_ERROR");
  expect(One(set, "b%zz"), 400, "GENERAL");
  expect(One(set, "b%ff"), 400, "GENERAL");
  expect(One(set, "bool", std::string(kMaxOfrepBodyBytes + 1, ' ')), 413, "GENERAL");
  expect(Post(set, "/ofrep/v1/other"), 404, "GENERAL");
  expect(Post(set, "/ofrep/v1/evaluate/flagship"), 404, "GENERAL");
  MetricsRegistry metrics;
  const flags::FlagGate gate(set, metrics);
  const HttpResponse get = HandleOfrep({.method = "GET", .path = kAll}, gate, WallTime{});
  expect(get, 405, "GENERAL");
  EXPECT_EQ(get.headers.at("allow"), "POST");
}

TEST(OfrepHandlerTest, CountsFlagsThatThereAreNot) {
  MetricsRegistry metrics;
  const flags::FlagGate gate(MakeFlags(), metrics);
  for (const char* key : {"/nowhere", "/gone", "/bool", ""}) {
    const std::string path = std::string(kAll) + key;
    (void)HandleOfrep({.method = "POST", .path = path}, gate, WallTime{});
  }
  for (const MetricFamily& family : metrics.Collect()) {
    if (family.name != "sluice_flag_not_found_total") continue;
    ASSERT_EQ(family.samples.size(), 1U);
    EXPECT_EQ(family.samples[0].label_values, std::vector<std::string>{"ofrep"});
    EXPECT_EQ(family.samples[0].value, 2);
    return;
  }
  FAIL() << "no such metric";
}

TEST(OfrepHandlerTest, AllFlags) {
  const auto set = MakeFlags();
  for (const std::string& path : {std::string(kAll), std::string(kAll) + "/"}) {
    const HttpResponse response = Post(set, path);
    ASSERT_EQ(response.status, 200);
    const json flags = json::parse(response.body)["flags"];
    ASSERT_EQ(flags.size(), 12u);
    size_t errors = 0;
    for (const json& flag : flags) errors += flag.contains("errorCode") ? 1 : 0;
    EXPECT_EQ(errors, 2u) << "broken and wrong stand among the others";
  }
}

TEST(OfrepHandlerTest, AnETagSparesWhatIsKnown) {
  const auto set = MakeFlags();
  const std::string tag = Post(set, kAll).headers.at("etag");
  EXPECT_THAT(tag, testing::AllOf(testing::StartsWith("\""), testing::EndsWith("\"")));
  for (const std::string& known : {tag, "W/" + tag, "\"other\", " + tag, std::string("*")}) {
    const HttpResponse same = Post(set, kAll, R"({"context": {}})", known);
    EXPECT_EQ(same.status, 304) << known;
    EXPECT_EQ(same.body, "") << known;
    EXPECT_EQ(same.headers.at("etag"), tag);
  }
  EXPECT_EQ(Post(set, kAll, R"({"context": {}})", "\"other\"").status, 200);
  EXPECT_EQ(Post(set, kAll, R"({"context": {"leaving": true}})", tag).status, 200) << "another context, other answers";
  flags::FlagSetSpec spec = FlagSpec();
  spec.flags.pop_back();
  EXPECT_EQ(Post(MakeFlags(spec), kAll, R"({"context": {}})", tag).status, 200) << "other flags";
}

}  // namespace
}  // namespace sluice::services
