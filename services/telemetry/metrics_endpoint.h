// The Prometheus endpoint: serves a MetricsRegistry at http://<address>/metrics through prometheus-cpp.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/metrics.h"

namespace sluice::services {

// Thread-safety: thread-safe after Start. Owns its listener threads.
class MetricsEndpoint {
 public:
  // `address`: host:port; port 0 picks a free one. `refresh` runs before each scrape (may be null), on up to two
  // threads at once. UNAVAILABLE: the port is taken. INVALID_ARGUMENT: not host:port. `registry` outlives the endpoint.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& address,
                                                                const MetricsRegistry& registry,
                                                                std::function<void()> refresh);
  ~MetricsEndpoint();
  int port() const;

 private:
  struct Impl;
  explicit MetricsEndpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
