#include "config/fault_file.h"

#include <string_view>

#include "base/status.h"
#include "config/yaml_reader.h"

namespace sluice::config {
namespace {

constexpr int64_t kHourMs = 3'600'000;
constexpr double kPercent = 100;

void ReadShare(Section& section, std::string_view key, double* out) {
  double percent = 0;
  if (section.Number(key, 0, kPercent, &percent) != Source::kDefault) *out = percent / kPercent;
}

Fault ReadFault(Section section) {
  Fault out;
  ReadShare(section, "error_percent", &out.error_share);
  ReadShare(section, "crash_percent", &out.crash_share);
  section.Millis("delay_ms", 0, kHourMs, &out.delay);
  section.Integer("leak_bytes", 0, 1 << 30, &out.leak_bytes);
  return out;
}

}  // namespace

absl::StatusOr<FaultsByPipeline> LoadFaultFile(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode file, LoadYamlFile(path));
  Faults faults(path);
  FaultsByPipeline out;
  {
    Section root(&file, file.line, "", faults, nullptr);
    for (const char* pipeline : {"baseline", "ttft"}) {
      const bool there = root.Has(pipeline);
      const Fault fault = ReadFault(root.Map(pipeline));
      if (there) out[pipeline] = fault;
    }
  }
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return out;
}

}  // namespace sluice::config
