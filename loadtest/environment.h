// Where a run took place: enough to know whether two runs may be compared.
#pragma once

#include <map>
#include <string>

namespace sluice::loadtest {

// cpu, cores (that we may use), memory_limit_mb (of the machine or the cgroup), kernel, fingerprint (of these), time,
// commit (of the checkout that we run in, with "+" when files were changed), sluice_version.
std::map<std::string, std::string> DescribeMachine();

// Now, as "2026-01-31T12:00:00Z".
std::string UtcTime();

}  // namespace sluice::loadtest
