// flagd.evaluation.v1.Service and .v2.Service over the flag gate, for OpenFeature's flagd providers in rpc mode.
#pragma once

#include <memory>
#include <vector>

#include "services/grpc/doors.h"
#include "services/grpc/flag_events.h"

namespace sluice::services {

// Both versions. `guard` and `events` outlive them; `doors` is copied. Thread-safety: thread-safe; handlers do not
// block. Statuses as flagd's: NOT_FOUND (no such flag; v1 also: no default variant), INVALID_ARGUMENT (another type),
// DATA_LOSS (the definition is broken), UNKNOWN (its targeting named no variant); ErrorInfo.reason is OpenFeature's
// error code.
std::vector<std::unique_ptr<grpc::Service>> MakeFlagdServices(DoorContext doors, const CallGuard& guard,
                                                              FlagEvents& events);

}  // namespace sluice::services
