// Runs a scenario against one server and reads back what it left.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "loadtest/session.h"

namespace sluice::loadtest {

struct Result {
  Run run;
  Scenario scenario;
  Summary summary;
};

// The sanitized builds and busy machines of CI are late; what is tested here is what was measured of what happened.
inline constexpr const char* kPatient = "limits: {lag_ms: 1000, generator_cpu: 1000}\n";

// `engines`: the list's items in YAML; `rest`: further keys of the scenario.
absl::Status TryDrive(const std::string& engines, const std::string& rest, const std::string& folder,
                      const std::atomic<bool>& stop);
// One engine called "fake" at `url`, in a fresh folder of the running test; failures are the test's.
Result Drive(const std::string& url, const std::string& rest);
Result Drive(const std::string& url, const std::string& rest, const std::atomic<bool>& stop);
// Of the running test.
std::string FreshFolder();

}  // namespace sluice::loadtest
