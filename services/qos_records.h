// The decision log as a file: one JSON object a line. Reference of the fields: docs/operations.md, "The decision log".
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "qos/decision_log.h"

namespace sluice::services {

// One line without its end. Times are nanoseconds of the recording process's monotonic clock.
std::string EncodeQosRecord(const qos::QosRecord& record);
// The first line of each process that writes: what follows belongs to another clock than what came before.
std::string EncodeQosStart(WallTime now);

// Reads the log of the last process in the file, in order. Blocks. INVALID_ARGUMENT "FILE:LINE: what"; NOT_FOUND. A
// last line that was cut off by a crash is left out.
struct QosLogSummary {
  size_t records = 0;
  size_t sections = 0;  // processes that wrote to the file
  bool torn = false;    // the last line was cut off
};
absl::StatusOr<QosLogSummary> ReadQosLog(const std::string& path,
                                         const std::function<void(const qos::QosRecord&)>& each);

}  // namespace sluice::services
