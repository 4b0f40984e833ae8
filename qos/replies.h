// Answers that were found under a lock and are given after it.
#pragma once

#include <vector>

#include "qos/permit.h"

namespace sluice::qos {

struct Reply {
  AdmissionCallback callback;
  Answer answer;
};

// Calls back, on this thread, one after the other. A callback that settles its permit makes replies of its own: given
// by `owner` on the same thread, they join the list that this thread works through already. However many callbacks drop
// their permit at once, the stack stays flat. Requires: no lock is held.
void Deliver(const void* owner, std::vector<Reply> replies);

}  // namespace sluice::qos
