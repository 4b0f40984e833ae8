#include "tests/loadtest/drive.h"

#include <gtest/gtest.h>

#include "fmt/format.h"

namespace sluice::loadtest {

std::string FreshFolder() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  return fmt::format("{}/{}.{}", testing::TempDir(), info->test_suite_name(), info->name());
}

absl::Status TryDrive(const std::string& engines, const std::string& rest, const std::string& folder,
                      const std::atomic<bool>& stop) {
  const SessionOptions options{.scenario_text = fmt::format("name: test\nengines: [{}]\n{}\n", engines, rest),
                               .out_folder = folder};
  const auto scenario = ParseScenario("test", options.scenario_text, options.quick, options.overrides);
  return scenario.ok() ? RunScenario(options, *scenario, stop) : scenario.status();
}

Result Drive(const std::string& url, const std::string& rest, const std::atomic<bool>& stop) {
  const std::string folder = FreshFolder();
  const absl::Status status = TryDrive(fmt::format("{{name: fake, url: \"{}\"}}", url), rest, folder, stop);
  EXPECT_TRUE(status.ok()) << status;
  Result result;
  auto summary = SummarizeFile(folder + "/run.jsonl", &result.run, &result.scenario);
  EXPECT_TRUE(summary.ok()) << summary.status();
  if (summary.ok()) result.summary = *std::move(summary);
  return result;
}

Result Drive(const std::string& url, const std::string& rest) {
  const std::atomic<bool> never{false};
  return Drive(url, rest, never);
}

}  // namespace sluice::loadtest
