// What a replay found, for people and for tools.
#pragma once

#include <string>
#include <vector>

#include "qos/replay.h"
#include "services/qos_records.h"

namespace sluice::cli {

struct NamedReport {
  std::string name;  // of the policy file
  services::QosLogSummary log;
  qos::ReplayReport report;
};

std::string ReplayText(const std::string& log, const std::vector<NamedReport>& reports, bool enforced);
std::string ReplayJson(const std::vector<NamedReport>& reports);  // one object

}  // namespace sluice::cli
