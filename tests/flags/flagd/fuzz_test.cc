// Random documents and rules: whatever they are, reading and running them ends, with an answer or an error.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iterator>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "flags/flagd/definitions.h"
#include "flags/flagd/json_logic.h"
#include "fmt/format.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

class Random {
 public:
  Random() {
    const char* given = std::getenv("SLUICE_TEST_SEED");
    if (given == nullptr || !absl::SimpleAtoi(given, &seed_)) seed_ = 20261122;
    engine_.seed(seed_);
  }
  uint32_t seed() const { return seed_; }
  size_t Below(size_t n) { return engine_() % n; }

  json Value(int depth) {
    static const std::string kTexts[] = {
        "",  "a",  "on",     "0",        "-1", "1e308", "targetingKey",  "user.name", "1.2.3",
        "v", "..", "$flagd", "\xc3\xa4", "^",  "=",     "$flagd.flagKey"};
    switch (Below(depth > 0 ? 9 : 6)) {
      case 0:
        return nullptr;
      case 1:
        return Below(2) == 0;
      case 2:
        return static_cast<int64_t>(engine_()) - 2'000'000'000;
      case 3:
        return static_cast<double>(engine_()) / 1e9;
      case 4:
      case 5:
        return kTexts[Below(std::size(kTexts))];
      case 6:
        return List(depth - 1);
      default:
        return Rule(depth - 1);
    }
  }

  json Rule(int depth) {
    static const char* const kNames[] = {
        "var", "missing", "missing_some", "==",      "===",         "!=",        "!==",   "!",
        "!!",  "or",      "and",          "if",      "?:",          ">",         ">=",    "<",
        "<=",  "max",     "min",          "+",       "-",           "*",         "/",     "%",
        "map", "filter",  "reduce",       "all",     "none",        "some",      "merge", "in",
        "cat", "substr",  "fractional",   "sem_ver", "starts_with", "ends_with", "$ref",  "unknown"};
    return {{kNames[Below(std::size(kNames))], Below(8) == 0 ? Value(depth) : List(depth)}};
  }

  json List(int depth) {
    json list = json::array();
    for (size_t i = Below(5); i > 0; --i) list.push_back(Value(depth));
    return list;
  }

 private:
  uint32_t seed_ = 0;
  std::mt19937 engine_;
};

TEST(FlagdFuzz, RulesEnd) {
  Random random;
  SCOPED_TRACE(fmt::format("SLUICE_TEST_SEED={}", random.seed()));
  fmt::print(stderr, "SLUICE_TEST_SEED={}\n", random.seed());
  size_t answers = 0, errors = 0;
  for (int i = 0; i < 20'000; ++i) {
    const json rule = random.Rule(6), data = random.Value(4), shared = {{"a", random.Rule(3)}};
    const auto result = ApplyLogic(rule, data, &shared, {.max_steps = 20'000, .max_text_bytes = 10'000});
    ++(result.ok() ? answers : errors);
    if (result.ok()) {
      EXPECT_FALSE(result->dump().empty()) << rule;
    }
    const auto again = ApplyLogic(rule, data, &shared, {.max_steps = 20'000, .max_text_bytes = 10'000});
    EXPECT_EQ(again.ok(), result.ok()) << rule;
    if (again.ok() && result.ok()) {
      EXPECT_EQ(*again, *result) << rule;
    }
  }
  EXPECT_GT(answers, 1000u) << "mostly errors: the generator finds nothing";
  EXPECT_GT(errors, 1000u);
}

TEST(FlagdFuzz, DocumentsEnd) {
  Random random;
  SCOPED_TRACE(fmt::format("SLUICE_TEST_SEED={}", random.seed()));
  fmt::print(stderr, "SLUICE_TEST_SEED={}\n", random.seed());
  size_t read = 0, refused = 0;
  for (int i = 0; i < 5'000; ++i) {
    json flag = {{"state", "ENABLED"}, {"variants", {{"on", true}, {"a", false}}}, {"defaultVariant", "on"}};
    flag["targeting"] = random.Rule(5);
    if (random.Below(10) == 0) flag["variants"] = random.Value(3);
    std::string text = json({{"flags", {{"f", flag}}}, {"$evaluators", {{"a", random.Rule(3)}}}}).dump();
    if (random.Below(4) == 0) text[random.Below(text.size())] = static_cast<char>(random.Below(256));
    const auto definitions = ParseDefinitions(text, {.refuse_bad_rules = random.Below(2) == 0});
    ++(definitions.ok() ? read : refused);
    if (!definitions.ok()) {
      EXPECT_EQ(definitions.status().code(), absl::StatusCode::kInvalidArgument) << text;
      continue;
    }
    const json attributes = random.Value(4);
    for (const Flag& found : definitions->flags) {
      found.targeting->Evaluate(found.key, {.targeting_key = "k", .attributes = &attributes});
    }
  }
  EXPECT_GT(read, 500u);
  EXPECT_GT(refused, 500u);
}

}  // namespace
}  // namespace sluice::flags::flagd
