// The samples that the JSON Schema is checked with (schema_test.py), asked of the loader; and each refusal's words.
#include <algorithm>
#include <filesystem>
#include <map>

#include "config/config_loader.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using test::IsOk;

constexpr const char* kSamples = "tests/config/flag_samples";

std::map<std::string, absl::Status> LoadAll(const std::string& folder) {
  std::map<std::string, absl::Status> out;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(kSamples) / folder)) {
    const auto spec = LoadFlagSpec(entry.path().string(), nullptr);
    out[entry.path().stem().string()] = spec.ok() ? flags::FlagSet::Create(*spec, 1).status() : spec.status();
  }
  return out;
}

TEST(FlagSamples, GoodOnesFormASet) {
  const auto all = LoadAll("good");
  EXPECT_GE(all.size(), 3u);
  for (const auto& [name, status] : all) EXPECT_THAT(status, IsOk()) << name;
}

TEST(FlagSamples, BadOnesAreRefusedAsBySchema) {
  const auto all = LoadAll("bad");
  EXPECT_GE(all.size(), 30u);
  for (const auto& [name, status] : all) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("; allowed: ")) << name;
  }
}

// The last line of each refusal, without its file.
TEST(FlagSamples, BadOnesBeyondASchemaNameTheirLine) {
  const std::map<std::string, std::string> expected = {
      {"percentage_finer",
       "1: mine.rollout_percentage: \"0.005\" has more than two decimals; allowed: 0 to 100 (percent) in steps of "
       "0.01"},
      {"hash_version_1_fraction",
       "1: mine.rollout_percentage: got 33.33 %; allowed: whole percents, as hash_version is 1"},
      {"unknown_parent", "4: mine.parent: no flag is called \"nobody\"; allowed: a flag of this set"},
      {"cycle", "3: a.parent: parents form a cycle: a -> b -> a; allowed: parents without a cycle"},
      {"nested_seed",
       "4: mine.hash_seed: \"other\" contradicts parent_share nested; allowed: \"phase5\" (that of phase5), or none"},
      {"nested_version",
       "5: mine.hash_version: 2 contradicts parent_share nested; allowed: 1 (that of phase5), or none"},
      {"nested_orphan", "1: mine.parent_share: nested, but there is no parent; allowed: nested with a parent only"},
      {"no_weight", "3: mine.variants: the weights sum up to 0; allowed: 1 to 1000000"},
      {"unknown_variant", "7: mine.rules.second: there is no variant \"c\"; allowed: a name under variants"},
      {"same_rule", "5: mine.rules[1].name: \"r\" is the name of an earlier rule; allowed: one rule with a name"},
      {"semver",
       "1: mine.rules[0].when[0].semver: \"1.x\" is not a range of versions; allowed: ^1.2.3, ~1.2.3, <, <=, >, >=, = "
       "or != and a version, several with a space between"},
      {"schedule_order", "3: mine.schedule: ends before it starts; allowed: a start before the end"},
      {"schedule_day",
       "1: mine.schedule.start: \"2026-02-30T00:00:00Z\" is not a time; allowed: a time as 2026-01-31T23:59:59Z or "
       "with an offset (RFC 3339)"},
      {"given_twice", "2: mine: given twice (first in line 1); allowed: once"},
      {"key_twice", "1: mine.enabled: given twice (first in line 1); allowed: once"},
      {"empty_key", "1: mine.allow[0]: is empty; allowed: text of 1 to 256 bytes"},
      {"close_name",
       "1: ttft_pipline: unknown flag (did you mean ttft_pipeline?); allowed: phase5, ttft_pipeline, qos_policy, "
       "emergency, or a flag of your own with another name"},
  };
  const auto all = LoadAll("bad_beyond_schema");
  EXPECT_EQ(all.size(), expected.size());
  for (const auto& [name, status] : all) {
    ASSERT_TRUE(expected.contains(name)) << name;
    EXPECT_EQ(std::string(status.message()),
              std::string(kSamples) + "/bad_beyond_schema/" + name + ".yaml:" + expected.at(name));
  }
}

}  // namespace
}  // namespace sluice::config
