// What a tenant may take of a model: requests, streams and tokens. Tokens are reserved before the work (prompt +
// max_tokens), settled on what was really used, and given back when nothing was.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "qos/request.h"

namespace sluice::state {
class StateStore;
}

namespace sluice::qos {

// Zero: unlimited.
struct QuotaLimits {
  double requests_per_second = 0;
  double request_burst = 0;  // requests at once above the rate; zero: one second's worth
  int concurrent_requests = 0;
  int64_t prompt_tokens_per_minute = 0;
  int64_t output_tokens_per_minute = 0;
};

struct QuotaRule {
  std::string tenant = "*";  // "*": every tenant that no rule names, each on its own
  std::string model = "*";   // "*": all models together
  QuotaLimits limits;
};

// A request is charged by every rule that fits it, or by none: rules that name its tenant, else those of "*"; of these,
// the ones of its model and of "*".
//
// Shared between replicas, each keeps its own accounts and takes off what the others say they charged: until the next
// Sync each may let in what is left as it knows it, so n replicas overshoot by at most what n - 1 of them charge
// between two Syncs. Without the store each goes on alone with what it knows.
//
// Thread-safety: thread-safe; short locks. Bounded: at most `kMaxTenants` accounts (a tenant under a rule) are
// remembered, the ones idle the longest are forgotten first (a forgotten one starts full); never one that has something
// reserved.
class Quotas {
 public:
  static constexpr size_t kMaxTenants = 10'000;

  // Metrics: sluice_qos_quota_refusals_total{reason}, sluice_qos_quota_tenants,
  // sluice_qos_quota_reserved_tokens{kind}, sluice_qos_quota_stale. `store` null: local; else usage is shared between
  // replicas through it.
  Quotas(std::vector<QuotaRule> rules, const Clock& clock, MetricsRegistry& metrics,
         state::StateStore* store = nullptr);
  ~Quotas();

  void SetRules(std::vector<QuotaRule> rules);  // usage of what stays is kept

  // Move-only. Settle once; dropping it unsettled gives everything back.
  class Reservation {
   public:
    Reservation();
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation();
    // Charges what was computed; the rest of the reservation is given back.
    void Settle(int prompt_tokens, int output_tokens);

   private:
    friend class Quotas;
    struct Held;
    std::unique_ptr<Held> held_;  // null: nothing is limited
  };

  // RESOURCE_EXHAUSTED (QUOTA_REQUESTS, QUOTA_CONCURRENCY, QUOTA_PROMPT_TOKENS, QUOTA_OUTPUT_TOKENS) with retry_after
  // and a violation naming tenant, model, limit and what is left; a request that no full bucket could ever hold says so
  // and has no retry_after.
  absl::StatusOr<Reservation> Reserve(const Request& request);

  // Exchanges usage with the other replicas; may block on the store. Call it about once a second, from one thread.
  void Sync();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
