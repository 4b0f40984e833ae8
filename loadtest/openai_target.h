// OpenAI-compatible servers over HTTP/1.1 and server-sent events: vLLM, llama-server and others.
#pragma once

#include <memory>

#include "loadtest/target.h"

namespace sluice::loadtest {

// http(s)://HOST:PORT[/BASE]. One thread drives every request (libcurl's socket interface over epoll); a request takes
// a connection that is free or opens one, so options.connections means nothing here. HTTP's codes end up as the gRPC
// codes that they map to; a stream that ends without finish_reason and [DONE] is DATA_LOSS.
std::unique_ptr<Target> MakeOpenAiTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                         MonoTime epoch);

}  // namespace sluice::loadtest
