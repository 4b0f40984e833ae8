// FlagService.Watch: the present flags, then each change.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "flags/flag_gate.h"
#include "sluice/v1/flags.grpc.pb.h"

namespace sluice::services {

// Changes that come faster than the caller reads are told together, so a watcher holds two sets at most. The reactor
// frees itself; while it lives `watchers` is one higher (unless `permitted` refuses). A watcher does not keep a drain
// waiting.
grpc::ServerWriteReactor<v1::FlagEvent>* WatchFlags(flags::FlagGate& gate, const absl::Status& permitted,
                                                    grpc::CallbackServerContext& context, const std::string& request_id,
                                                    std::shared_ptr<std::atomic<int>> watchers);

}  // namespace sluice::services
