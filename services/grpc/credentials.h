// Server credentials from TlsOptions: none, TLS, or mTLS, with rotated files picked up while serving.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "config/server_config.h"

namespace grpc {
class ServerCredentials;
}

namespace sluice::services {

// Insecure when TLS is off. Else TLS 1.2 or newer; clients must show a certificate when client_ca_file is set.
// The files are read again every reload_interval (at least 1 s): replace certificate and key together, by renaming
// a folder or a link; while they do not match, new handshakes fail.
// INVALID_ARGUMENT, naming the key of the config, the file and the reason: unreadable, not PEM, an encrypted key, or a
// key of another certificate. Reads files: blocks.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const config::TlsOptions& tls);

}  // namespace sluice::services
