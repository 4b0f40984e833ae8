// What the gRPC targets share: connections, credentials, and what a status means.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

// `options.connections` channels to the host of `options.url`, each with a TCP connection of its own.
// INVALID_ARGUMENT when the CA file cannot be read.
absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> OpenChannels(const TargetOptions& options);

// Deadline, bearer token, x-request-id and the headers of the options.
void PrepareContext(const TargetOptions& options, const Request& request, grpc::ClientContext& context);

// Same code, the message as it is.
absl::Status ToAbslStatus(const grpc::Status& status);

// Waits until a connection stands or is refused. UNAVAILABLE saying what was tried.
absl::Status WaitForChannel(grpc::Channel& channel, const std::string& url, Duration timeout);

}  // namespace sluice::loadtest
