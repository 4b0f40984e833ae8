// What may be wrong with policies: one check for files and PolicySet::Create.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "qos/policy.h"

namespace sluice::qos {

struct PolicyFault {
  size_t index = 0;           // of the policy, as given
  std::string policy, field;  // its id; the key as in the YAML, with the number in lists: "ladder[2]"
  std::string what, allowed;
};

// Of each policy: an id that is none or taken, no objective, numbers out of range, a metric that its signal is not of,
// minima of what has none, a maximum below the minimum of the same metric; and of its ladder what contradicts itself: a
// limit that loosens or stays as it climbs, the same action twice, two pipelines or upstreams, opening the circuit of
// the pipeline that it switches to, shedding or queueing a class that a lower step sheds or that it does not act on,
// shedding or queueing `system`, queue for certain tenants or models only, and what acts on the whole process (queue,
// open_circuit, unload_idle_models) enforced for less than 100 %. Of all together: more than PolicySet allows.
std::vector<PolicyFault> FindPolicyFaults(const std::vector<Policy>& policies);

}  // namespace sluice::qos
