// sluicectl rollout simulate: false alarms and detection, by the code that decides in production.
#pragma once

#include "base/args.h"

namespace sluice::cli {

// Options of RolloutSpec; without a server. Returns an exit code.
int RolloutSimulate(const Args& args);

}  // namespace sluice::cli
