// KServe v2 gRPC servers with Triton's streaming (Sluice's own door of that kind, Triton), through the callback API.
#pragma once

#include <memory>

#include "loadtest/target.h"

namespace sluice::loadtest {

// kserve://HOST:PORT or kserves://HOST:PORT (TLS). One ModelStreamInfer call a request, text in, text out; requests
// take turns on the connections. The protocol has no chats and no token ids: such requests end with UNIMPLEMENTED.
// Without a model in the options Check picks the only one.
std::unique_ptr<Target> MakeKserveTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                         MonoTime epoch);

}  // namespace sluice::loadtest
