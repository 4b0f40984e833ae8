// Sluice's own gRPC door, with the callback API: no thread per stream.
#pragma once

#include <memory>

#include "loadtest/target.h"

namespace sluice::loadtest {

// grpc://HOST:PORT or grpcs://HOST:PORT (TLS). Each connection is a TCP connection of its own; requests take turns.
std::unique_ptr<Target> MakeNativeTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                         MonoTime epoch);

}  // namespace sluice::loadtest
