// What tells this replica from the others, and the file in which it notes its requests in flight.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "config/server_config.h"
#include "rollout/crash_journal.h"

namespace sluice::services {

// Host name and port, unless it was given one: the same after a restart.
std::string ReplicaName(const config::RuntimeConfig& runtime);

// In state_folder. Without one among the temporary files, in a folder that only we may write: a container's are still
// there when the container is started again. UNAVAILABLE: neither is possible, with what to do.
absl::StatusOr<std::unique_ptr<rollout::CrashJournal>> OpenCrashJournal(const config::RuntimeConfig& runtime,
                                                                        WallTime now);

}  // namespace sluice::services
