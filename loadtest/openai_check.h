// Is an OpenAI-compatible server there, ready, and does it have the model?
#pragma once

#include <atomic>

#include "base/clock.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// options.url without a trailing "/" and without "/v1", which clients of this API often have in their URL.
std::string OpenAiRoot(const std::string& url);

// Target::Check over HTTP: GET /health (503 while llama-server loads its model; others may not have it), then
// /v1/models. Waits up to `timeout` for a server that answers so, not for one that does not listen.
absl::Status CheckOpenAi(const TargetOptions& options, const Clock& clock, Duration timeout,
                         const std::atomic<bool>& stop);

}  // namespace sluice::loadtest
