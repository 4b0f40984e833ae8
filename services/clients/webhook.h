// Alerts to other systems: JSON by POST to configured URLs, each alert once, with retries, never in anybody's way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"

namespace sluice::services {

struct WebhookOptions {
  std::string name;     // as policies call it; a metric label
  std::string url;      // http:// or https://; redirects are not followed
  std::string secret;   // signs every body; empty: no signature
  std::string ca_file;  // PEM of the authority to trust; empty: the system's. Peer and host name are always checked
  Duration timeout = std::chrono::seconds(5);  // of one attempt
  int max_attempts = 5;                        // of one alert
  Duration initial_backoff = std::chrono::seconds(1);
  Duration max_backoff = std::chrono::minutes(1);
  Duration dedup_window = std::chrono::minutes(5);  // the same alert is not sent again within it; zero: it is
  int max_queue = 256;                              // alerts that wait

  bool operator==(const WebhookOptions&) const = default;
};

// What happened. Two alerts are the same when policy, metric and state are.
struct Alert {
  std::string policy, metric, state;  // state: "violated", "recovered", "open", ...
  std::string severity;               // "warning"
  double value = 0, threshold = 0;
  int step = 0;
  bool dry_run = false;
  std::string message;  // for people
};

// Delay before attempt `failures` + 1 (failures from 1): doubles from initial to max, of which a random half is taken
// off (`random` in [0, 1)). A `retry_after` of the receiver that is longer counts, up to max_backoff. Pure.
Duration WebhookBackoff(const WebhookOptions& options, int failures, Duration retry_after, double random);

// "sha256=" and HMAC-SHA256 (RFC 2104) of the body in lower-case hex: the header x-sluice-signature-256, which
// receivers compare in constant time. Pure.
std::string WebhookSignature(std::string_view secret, std::string_view body);

// Thread-safety: thread-safe. One thread a webhook, so that a slow receiver delays its own alerts only.
class Webhooks {
 public:
  enum class Outcome { kQueued, kDuplicate, kQueueFull, kUnknown };  // kUnknown: no webhook has this name

  // Metrics: sluice_webhook_alerts_total{webhook,outcome}: "sent", "failed" (given up), "duplicate", "queue_full";
  // sluice_webhook_attempts_total{webhook,result}: "ok", "retry", "refused"; sluice_webhook_queued{webhook}.
  // `instance` tells receivers which server speaks. `clock` outlives it; `random` gives numbers in [0, 1), one call at
  // a time.
  Webhooks(std::string instance, const Clock& clock, std::function<double()> random, MetricsRegistry& metrics);
  ~Webhooks();  // as Set({})

  // From now on there are these. One that stays as it is keeps what waits and what it sent; of others what waits is
  // dropped, and the log says so. Blocks for at most some 1 s while an attempt ends. INVALID_ARGUMENT, and nothing
  // changes: a name twice or empty, or a URL that is neither http nor https.
  absl::Status Set(std::vector<WebhookOptions> webhooks);

  // Never blocks on the network. The body: {"id", "time" (RFC 3339), "instance", "policy", "metric", "state",
  // "severity", "value", "threshold", "step", "dry_run", "message"}; all attempts carry the same one, and its id in the
  // header x-sluice-delivery.
  Outcome Post(std::string_view webhook, const Alert& alert);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
