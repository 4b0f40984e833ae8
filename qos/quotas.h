// What a tenant may take of a model: requests, streams and tokens. Tokens are reserved before the work (prompt +
// max_tokens), settled on what was really used, and given back when nothing was.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "qos/quota_limits.h"
#include "qos/request.h"

namespace sluice::state {
class StateStore;
}

namespace sluice::qos {

// Thread-safety: thread-safe; short locks. Bounded: at most `kMaxTenants` tenants are remembered (more only while more
// have something reserved), the ones idle the longest are forgotten first; a forgotten one starts full, unless replicas
// know it. A request is held to the rule of its model and to that of all models, if there are both; of two rules for
// the same tenant and model the last one counts. A tenant that any rule names is free of the rules for "*".
//
// With a store, replicas tell each other at each Sync what they let in. Between two of them n replicas may together let
// in too much: at most (n - 1) times what was left at the last Sync and has refilled since. That is a debt: nothing is
// let in until it has refilled. A clock that is ahead of the others by s refills s too much, once. While the store
// cannot be reached, each goes on with what it knew and with its own usage, and tells it later (what an unanswered
// write did may then count twice). Concurrent requests are counted by each replica alone.
class Quotas {
 public:
  static constexpr size_t kMaxTenants = 10'000;

  // Metrics: sluice_qos_quota_refusals_total{reason}, sluice_qos_quota_tenants,
  // sluice_qos_quota_reserved_tokens{kind}, sluice_qos_quota_stale (1: the last Sync failed).
  // `store` null: local; else usage is shared between replicas through it.
  Quotas(std::vector<QuotaRule> rules, const Clock& clock, MetricsRegistry& metrics,
         state::StateStore* store = nullptr);
  ~Quotas();

  void SetRules(std::vector<QuotaRule> rules);  // usage of what stays is kept

  // Move-only, thread-compatible. Settle once; dropping it unsettled gives everything back, the request too. The Quotas
  // must outlive it.
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
    explicit Reservation(std::unique_ptr<Held> held);
    std::unique_ptr<Held> held_;  // null: nothing is limited
  };

  // RESOURCE_EXHAUSTED (QUOTA_REQUESTS, QUOTA_CONCURRENCY, QUOTA_PROMPT_TOKENS, QUOTA_OUTPUT_TOKENS) with retry_after
  // and a violation for each used-up limit, naming tenant, model, limit and what is left. The reason is of the limit
  // that takes longest to have enough again; a request that no full bucket could ever hold says so and has no
  // retry_after.
  absl::StatusOr<Reservation> Reserve(const Request& request);

  // Exchanges usage with the other replicas; may block on the store. Call it about once a second, from one thread.
  void Sync();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::qos
