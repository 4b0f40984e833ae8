// sluicectl rollout plan: how long the stages of a rollout must run to show something.
#pragma once

#include "base/args.h"

namespace sluice::cli {

// Options of RolloutSpec. With a flag the traffic and the stages are those that the server counts and knows, where it
// can be reached and no option says otherwise. Returns an exit code.
int RolloutPlan(const Args& args);

}  // namespace sluice::cli
